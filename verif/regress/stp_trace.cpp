// Drives the Verilated STP with a recorded stream of routings and writes down every score it answers with.
// Arguments: experts, layers, tokens, top-k, bits of an id and of a layer, whether there are words, input file, output file,
// cycles between an answer and the next routing.
// Input: uint16 ids [T, L, K], then uint8 adjacent [T], then int32 token ids [T]. Output: uint8 [T, L, E], 0 where nothing is said.
// With ROWS_IN_DRAM there is a memory, and four more arguments: its bytes, the least and the most cycles to a burst's first beat,
// and the file from which its first bytes come and that gets its contents. Reads and writes have a channel each, a beat a cycle.
// On standard output: cycles; of all answers the cycles from the routing or word to the last item; beats read and written.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <random>
#include <vector>

#include "Vstp_trace.h"

static Vstp_trace top;
static uint64_t cycles = 0;

static uint64_t read_beats = 0, written_beats = 0;

#ifdef ROWS_IN_DRAM
struct Memory {
    struct Beat {
        uint64_t address, due;
        bool last;
    };
    std::vector<uint8_t> bytes;
    uint64_t least = 1, most = 1;
    std::mt19937_64 random{1};
    std::deque<Beat> reads;
    std::deque<uint64_t> writes, responses;

    uint64_t due() { return cycles + least + random() % (most - least + 1); }

    // What the engine offers in this cycle, and what it takes.
    void sample() {
        if (top.axi_rvalid) reads.pop_front();
        if (top.axi_bvalid && top.axi_bready) responses.pop_front();
        if (top.axi_arvalid && top.axi_arready) {
            const uint64_t start = due();
            for (int i = 0; i <= top.axi_arlen; ++i) reads.push_back({top.axi_araddr + i * BUS_BYTES, start, i == top.axi_arlen});
            read_beats += top.axi_arlen + 1;
        }
        if (top.axi_wvalid && top.axi_wready) {
            memcpy(&bytes.at(writes.front()), &top.axi_wdata, BUS_BYTES);
            writes.front() += BUS_BYTES;
            ++written_beats;
            if (top.axi_wlast) {
                writes.pop_front();
                responses.push_back(due());
            }
        }
        if (top.axi_awvalid && top.axi_awready) writes.push_back(top.axi_awaddr);
    }

    void drive() {
        top.axi_arready = top.axi_awready = 1;
        top.axi_wready = !writes.empty();
        top.axi_bvalid = !responses.empty() && responses.front() <= cycles;
        top.axi_rvalid = !reads.empty() && reads.front().due <= cycles;
        if (!top.axi_rvalid) return;
        memcpy(&top.axi_rdata, &bytes.at(reads.front().address), BUS_BYTES);
        top.axi_rlast = reads.front().last;
    }
};
#else
struct Memory {
    void sample() {}
    void drive() {}
};
#endif
static Memory memory;

static void tick() {
    top.aclk = 0;
    top.eval();
    memory.sample();
    top.aclk = 1;
    top.eval();
    ++cycles;
    memory.drive();
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
    const int pause = atoi(argument[10]);
    uint64_t answer_cycles = 0;
#ifdef ROWS_IN_DRAM
    memory.bytes.resize(strtoull(argument[11], nullptr, 0));
    memory.least = strtoull(argument[12], nullptr, 0);
    memory.most = strtoull(argument[13], nullptr, 0);
    FILE* begun = fopen(argument[14], "rb");
    if (!begun || !fread(memory.bytes.data(), 1, memory.bytes.size(), begun)) return 2;
    fclose(begun);
    top.limit_ = memory.bytes.size() - 1;
    top.image_id_ = IMAGE_ID;
#endif

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
        const uint64_t start = cycles;
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
        answer_cycles += cycles - start;
        fwrite(scores.data(), 1, scores.size(), out);
        for (int i = 0; i < pause; ++i) tick();
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
        }
    }
    do tick(); while (top.busy_);
    fclose(out);
#ifdef ROWS_IN_DRAM
    FILE* table = fopen(argument[14], "wb");
    if (!table || fwrite(memory.bytes.data(), 1, memory.bytes.size(), table) != memory.bytes.size()) return 2;
    fclose(table);
#endif
    for (uint64_t count : {cycles, answer_cycles, read_beats, written_beats}) printf("%llu ", static_cast<unsigned long long>(count));
    return 0;
}
