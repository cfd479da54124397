// The compiled board behind a few functions of C: its serial line, byte by byte, and its memory by the backdoor.
//
// Time stands still between two calls: a board would go on, but nothing here depends on how long the host takes.

#include <cstdint>
#include <cstring>
#include <memory>

#include "Vboard_bench.h"
#include "Vboard_bench___024root.h"
#include "verilated.h"

namespace {

// Cycles of a bit, with 16 bits behind the point.
constexpr int FRACTION = 16;
constexpr int BITS = 10;

class Board {
  public:
    explicit Board(uint32_t bit) : bit_(bit), top_(&context_) {
        top_.rx = 1;
        for (int i = 0; i < 8; ++i) tick();
        top_.aresetn = 1;
    }

    // Send bytes; run until every frame among them has been answered, or nothing has come for `patience` cycles.
    size_t exchange(const uint8_t* data, size_t size, uint8_t* out, size_t room, uint64_t patience) {
        size_t got = 0;
        for (size_t i = 0; i < size; ++i) {
            // A frame is what stands between two zeros, if anything does.
            if (data[i]) open_ = true;
            else if (open_) ++awaited_, open_ = false;
            const uint32_t word = 0x200u | uint32_t(data[i]) << 1;
            for (int b = 0; b < BITS; ++b) {
                top_.rx = word >> b & 1;
                for (due_ += bit_; due_ >> FRACTION; due_ -= 1u << FRACTION) receive(out, room, got);
            }
        }
        for (uint64_t quiet = 0; awaited_ > 0 && quiet < patience; ++quiet)
            if (receive(out, room, got)) quiet = 0;
        // The stop bit of the last byte.
        for (uint64_t left = 2 * bit_ >> FRACTION; left; --left) receive(out, room, got);
        awaited_ = 0;
        return got;
    }

    void run(uint64_t cycles) {
        while (cycles--) tick();
    }

    void write(uint64_t address, const uint8_t* data, size_t size) {
        auto& memory = top_.rootp->board_bench__DOT__board_system__DOT__chip__DOT__memory;
        for (size_t i = 0; i < size; ++i) {
            auto& word = memory[(address + i) / 2];
            const int shift = 8 * ((address + i) & 1);
            word = (word & ~(0xff << shift)) | data[i] << shift;
        }
    }

    void read(uint64_t address, uint8_t* data, size_t size) const {
        const auto& memory = top_.rootp->board_bench__DOT__board_system__DOT__chip__DOT__memory;
        for (size_t i = 0; i < size; ++i) data[i] = uint8_t(memory[(address + i) / 2] >> (8 * ((address + i) & 1)));
    }

    uint64_t cycles() const { return cycles_; }
    uint32_t violation() const { return top_.violation; }
    uint32_t leds() const { return top_.leds; }

  private:
    void tick() {
        // Inputs are taken over at the rising edge; the falling one changes nothing.
        top_.aclk = 1;
        top_.eval();
        top_.aclk = 0;
        top_.eval();
        ++cycles_;
    }

    // A cycle, with an eye on the line from the board; true while a byte is coming in or has come.
    bool receive(uint8_t* out, size_t room, size_t& got) {
        tick();
        if (!receiving_) {
            if (top_.tx) return false;
            receiving_ = true;
            shifted_ = 0;
            taken_ = 0;
            // The middle of the start bit.
            next_ = bit_ / 2;
        }
        if (next_ >= 1u << FRACTION) {
            next_ -= 1u << FRACTION;
            return true;
        }
        shifted_ |= uint32_t(top_.tx) << taken_;
        next_ += bit_ - (1u << FRACTION);
        if (++taken_ == BITS) {
            receiving_ = false;
            const uint8_t byte = uint8_t(shifted_ >> 1);
            if (got < room) out[got++] = byte;
            if (!byte && awaited_) --awaited_;
        }
        return true;
    }

    uint32_t bit_;
    VerilatedContext context_;
    Vboard_bench top_;
    uint64_t cycles_ = 0;
    uint32_t due_ = 0, next_ = 0, shifted_ = 0;
    int taken_ = 0;
    bool receiving_ = false, open_ = false;
    uint64_t awaited_ = 0;
};

}  // namespace

extern "C" {
Board* board_new(uint32_t bit) { return new Board(bit); }
void board_free(Board* board) { delete board; }
size_t board_exchange(Board* board, const uint8_t* data, size_t size, uint8_t* out, size_t room, uint64_t patience) {
    return board->exchange(data, size, out, room, patience);
}
void board_run(Board* board, uint64_t cycles) { board->run(cycles); }
void board_write(Board* board, uint64_t address, const uint8_t* data, size_t size) { board->write(address, data, size); }
void board_read(const Board* board, uint64_t address, uint8_t* data, size_t size) { board->read(address, data, size); }
uint64_t board_cycles(const Board* board) { return board->cycles(); }
uint32_t board_violation(const Board* board) { return board->violation(); }
uint32_t board_leds(const Board* board) { return board->leds(); }
}
