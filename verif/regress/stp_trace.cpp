// Drives the Verilated STP with a recorded stream of routings and writes down every score it answers with.
// Arguments: experts, layers, tokens, top-k, bits of an id and of a layer, whether there are words, input file, output file.
// Input: uint16 ids [T, L, K], then uint8 adjacent [T], then int32 token ids [T]. Output: uint8 [T, L, E], 0 where nothing is said.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "Vstp_trace.h"

static Vstp_trace top;
static uint64_t cycles = 0;

static void tick() {
    top.aclk = 0;
    top.eval();
    top.aclk = 1;
    top.eval();
    ++cycles;
}

int main(int, char** argument) {
    const int experts = atoi(argument[1]), layers = atoi(argument[2]), tokens = atoi(argument[3]), k = atoi(argument[4]);
    const int id_bits = atoi(argument[5]), layer_bits = atoi(argument[6]);
    const int words = atoi(argument[7]);
    std::vector<uint16_t> ids(size_t(tokens) * layers * k);
    std::vector<uint8_t> adjacent(tokens);
    std::vector<int32_t> token_ids(tokens);
    FILE* in = fopen(argument[8], "rb");
    if (!in || fread(ids.data(), 2, ids.size(), in) != ids.size() || fread(adjacent.data(), 1, tokens, in) != size_t(tokens) ||
        fread(token_ids.data(), 4, tokens, in) != size_t(tokens)) {
        fprintf(stderr, "%s: too short\n", argument[8]);
        return 2;
    }
    fclose(in);
    FILE* out = fopen(argument[9], "wb");
    if (!out) return 2;

    std::vector<uint8_t> scores(experts);
    top.shape_experts = experts;
    top.shape_layers = layers;
    top.threshold_ = 1;
    top.o_prediction_ready = 1;
    top.aresetn = 0;
    for (int i = 0; i < 4; ++i) tick();
    top.aresetn = 1;

    // Until the run of predictions has ended: what it says about each expert.
    auto answer = [&](bool said) {
        std::fill(scores.begin(), scores.end(), 0);
        for (bool last = !said; !last;) {
            top.aclk = 0;
            top.eval();
            if (top.o_prediction_valid) {
                last = top.o_prediction_last;
                if (!top.o_prediction_none) scores[top.o_prediction_ref >> layer_bits] = top.o_prediction_score;
            }
            tick();
        }
        fwrite(scores.data(), 1, scores.size(), out);
    };
    auto taken = [&](auto& valid, auto& ready) {
        valid = 1;
        for (bool done = false; !done;) {
            top.aclk = 0;
            top.eval();
            done = ready;
            tick();
        }
        valid = 0;
    };

    uint32_t sequence = 0;
    for (int t = 0; t < tokens; ++t) {
        sequence += !adjacent[t];
        top.i_routed_sequence = top.i_word_sequence = sequence;
        top.i_routed_token = top.i_word_token = t;
        top.i_routed_word = top.i_word_word = words ? token_ids[t] + 1 : 0;
        // Layer 0 is answered for when its word is known, else by the last layer before.
        if (words) {
            taken(top.i_word_valid, top.i_word_ready);
            answer(true);
        } else if (t == 0) {
            answer(false);
        }
        for (int layer = 0; layer < layers; ++layer) {
            uint64_t packed = 0;
            for (int j = 0; j < k; ++j) packed |= uint64_t(ids[(size_t(t) * layers + layer) * k + j]) << (j * id_bits);
            top.i_routed_layer = layer;
            top.i_routed_count = k;
            top.i_routed_ids = packed;
            taken(top.i_routed_valid, top.i_routed_ready);
            const bool end = layer == layers - 1;
            if (!(end && (words || t == tokens - 1))) answer(true);
            if (end && !words && t == tokens - 1) while (!top.i_routed_ready) tick();
        }
    }
    fclose(out);
    printf("%llu\n", static_cast<unsigned long long>(cycles));
    return 0;
}
