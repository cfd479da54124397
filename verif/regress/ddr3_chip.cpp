// Steps the Verilog DDR3 chip through a list of commands and writes down which rule it says is broken.
// Arguments: input file, output file. A record in, two a cycle: u32 of reset_n, cke, odt, we_n, cas_n, ras_n, bank, read and write enable from bit 0,
// then u32 address. Out, a byte a cycle: violation.
#include <cstdint>
#include <cstdio>

#include "Vddr3_chip.h"

int main(int, char** argument) {
    FILE* in = fopen(argument[1], "rb");
    FILE* out = fopen(argument[2], "wb");
    if (!in || !out) return 2;
    Vddr3_chip chip;
    uint32_t record[2][2];
    while (fread(record, 8, 2, in) == 2) {
        const uint32_t first = record[0][0], second = record[1][0];
        auto both = [&](int bit) { return (first >> bit & 1) | (second >> bit & 1) << 1; };
        chip.reset_n = both(0);
        chip.cke = both(1);
        chip.odt = both(2);
        chip.we_n = both(3);
        chip.cas_n = both(4);
        chip.ras_n = both(5);
        chip.bank = (first >> 6 & 7) | (second >> 6 & 7) << 3;
        chip.rddata_en = both(9);
        chip.wrdata_en = both(10);
        chip.address = record[0][1] | record[1][1] << 15;
        chip.clk = 0;
        chip.eval();
        chip.clk = 1;
        chip.eval();
        fputc(chip.violation, out);
    }
    fclose(out);
    return 0;
}
