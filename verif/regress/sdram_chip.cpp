// Steps the Verilog SDRAM chip through a list of pin values and writes down what it drives and which rule it says is broken.
// Arguments: input file, output file. A record in: u32 of cke, cs_n, ras_n, cas_n, we_n, ba, a, dqm, oe from bit 0, then u32 dq.
// A record out, after the edge: u16 dq, u8 driven, u8 violation.
#include <cstdint>
#include <cstdio>

#include "Vsdram_chip.h"

int main(int, char** argument) {
    FILE* in = fopen(argument[1], "rb");
    FILE* out = fopen(argument[2], "wb");
    if (!in || !out) return 2;
    Vsdram_chip chip;
    uint32_t record[2];
    while (fread(record, 4, 2, in) == 2) {
        const uint32_t pins = record[0];
        chip.cke = pins & 1;
        chip.cs_n = pins >> 1 & 1;
        chip.ras_n = pins >> 2 & 1;
        chip.cas_n = pins >> 3 & 1;
        chip.we_n = pins >> 4 & 1;
        chip.ba = pins >> 5 & 3;
        chip.a = pins >> 7 & 0x1fff;
        chip.dqm = pins >> 20 & 3;
        chip.dq_i_oe = pins >> 22 & 1;
        chip.dq_i = record[1];
        chip.clk = 0;
        chip.eval();
        chip.clk = 1;
        chip.eval();
        const uint16_t dq = chip.dq_o;
        const uint8_t flags[2] = {uint8_t(chip.dq_o_oe), uint8_t(chip.violation)};
        fwrite(&dq, 2, 1, out);
        fwrite(flags, 1, 2, out);
    }
    fclose(out);
    return 0;
}
