"""SDR SDRAM: controller, arbiter, and a model of the chip."""
