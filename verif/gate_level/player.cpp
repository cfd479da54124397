// Plays recorded cycles to a netlist and compares its outputs. Arguments: file, words of inputs, words of outputs.
// Prints the number of cycles and ends with 0, or prints the first cycle and bit that differ and ends with 1.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "Vplayer.h"
#include "verilated.h"

int main(int argc, char** argv) {
    if (argc != 4) return 2;
    const size_t inputs = std::strtoul(argv[2], nullptr, 10), outputs = std::strtoul(argv[3], nullptr, 10);
    std::FILE* file = std::fopen(argv[1], "rb");
    if (!file) return 2;
    VerilatedContext context;
    Vplayer top(&context);
    if (sizeof(top.in) != 4 * inputs || sizeof(top.out) != 4 * outputs) return 2;
    std::vector<uint32_t> row(inputs + 2 * outputs);
    long cycle = 0;
    for (; std::fread(row.data(), 4, row.size(), file) == row.size(); ++cycle) {
        for (size_t i = 0; i < inputs; ++i) top.in[i] = row[i];
        top.clk = 0;
        top.eval();
        for (size_t i = 0; i < outputs; ++i) {
            const uint32_t differing = (top.out[i] ^ row[inputs + i]) & row[inputs + outputs + i];
            if (!differing) continue;
            std::printf("%ld %zu\n", cycle, 32 * i + __builtin_ctz(differing));
            return 1;
        }
        top.clk = 1;
        top.eval();
    }
    std::printf("%ld cycles equal\n", cycle);
    return 0;
}
