// A master for the compiled SDRAM system (sdram_system.v): plays a list of AXI bursts, holds every byte read against a copy of the memory,
// and says in JSON how long it took and what the data pins waited for.
// Arguments: list of bursts, memory image, seed, outstanding reads, percent of cycles without RREADY, words of an SDRAM burst,
// cycle of the first burst (the chip should be awake by then), most cycles.
// A burst: u32 address, u16 beats, u8 write, u8 0. Data and strobes of writes are drawn from the seed.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <vector>

#include "Vsdram_system.h"
#include "verilated.h"

struct Burst {
    uint32_t address;
    uint16_t beats;
    uint8_t write;
    uint8_t zero;
};

static uint64_t state;
static uint32_t draw() {  // xorshift64*
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return uint32_t((state * 0x2545F4914F6CDD1DULL) >> 32);
}

template <class T>
static void get(const T& bus, uint8_t* bytes) { memcpy(bytes, &bus, BUS_BYTES); }
template <class T>
static void put(T& bus, const uint8_t* bytes) { memcpy(&bus, bytes, BUS_BYTES); }

static std::vector<uint8_t> load(const char* name) {
    FILE* file = fopen(name, "rb");
    if (!file) {
        fprintf(stderr, "%s: cannot be read\n", name);
        exit(2);
    }
    fseek(file, 0, SEEK_END);
    std::vector<uint8_t> bytes(ftell(file));
    rewind(file);
    if (fread(bytes.data(), 1, bytes.size(), file) != bytes.size()) exit(2);
    fclose(file);
    return bytes;
}

int main(int, char** argument) {
    const auto list = load(argument[1]);
    auto memory = load(argument[2]);
    state = strtoull(argument[3], nullptr, 10) * 2654435761u + 1;
    const size_t outstanding = atoi(argument[4]);
    const unsigned stall = atoi(argument[5]);
    const int words = atoi(argument[6]);
    const uint64_t start = strtoull(argument[7], nullptr, 10), most = strtoull(argument[8], nullptr, 10);
    const Burst* bursts = reinterpret_cast<const Burst*>(list.data());
    const size_t count = list.size() / sizeof(Burst);

    VerilatedContext context;
    // What no reset sets begins at random.
    context.randReset(2);
    context.randSeed(atoi(argument[3]) + 1);
    Vsdram_system top(&context);
    top.aresetn = 0;
    top.eval();
    for (size_t i = 0; i < memory.size() / 2; ++i) {
        top.backdoor_address = i;
        top.backdoor_data = memory[2 * i] | memory[2 * i + 1] << 8;
        top.backdoor_write = 1;
        top.aclk = 1;
        top.eval();
        top.aclk = 0;
        top.eval();
    }
    top.backdoor_write = 0;

    uint64_t cycle = 0, first = 0, last = 0, bytes = 0, differing = 0;
    std::deque<Burst> reading, addressed, writing;
    std::vector<std::pair<size_t, size_t>> busy;
    size_t next = 0, beat = 0, answered = 0, write_beat = 0;
    // Commands, and idle cycles of the data pins between two READs by what came between.
    uint64_t commands[8] = {}, gaps_refresh = 0, gaps_row = 0, gaps_other = 0, last_read = 0;
    bool refreshed = false, opened = false;
    bool ar_held = false, aw_held = false, w_held = false, b_ready = false;
    uint8_t data[BUS_BYTES];
    uint32_t strobe = 0;

    // A burst may not start while one of the other kind, which touches the same 4 KB, is under way: AXI would not order them.
    auto clash = [&](const Burst& burst) {
        const auto& others = burst.write ? reading : writing;
        for (const auto& other : others)
            if (other.address >> 12 == burst.address >> 12) return true;
        return false;
    };

    while ((next < count || !reading.empty() || !writing.empty()) && cycle < most) {
        top.aresetn = cycle >= 4;
        // Bursts go in the order of the list.
        if (!ar_held && !aw_held && next < count && cycle >= start && !clash(bursts[next])) {
            const Burst& burst = bursts[next];
            if (!burst.write && reading.size() < outstanding) {
                ar_held = true;
                top.s_axi_araddr = burst.address;
                top.s_axi_arlen = burst.beats - 1;
                reading.push_back(burst);
                ++next;
            } else if (burst.write && writing.size() < outstanding) {
                aw_held = true;
                top.s_axi_awaddr = burst.address;
                top.s_axi_awlen = burst.beats - 1;
                writing.push_back(burst);
                addressed.push_back(burst);
                ++next;
            }
        }
        top.s_axi_arvalid = ar_held;
        top.s_axi_awvalid = aw_held;
        top.s_axi_arsize = top.s_axi_awsize = BUS_BYTES == 16 ? 4 : 3;
        top.s_axi_arburst = top.s_axi_awburst = 1;
        if (!w_held && !addressed.empty() && draw() % 100 >= stall) {
            w_held = true;
            strobe = draw() & ((1u << BUS_BYTES) - 1);
            if (draw() % 2) strobe = (1u << BUS_BYTES) - 1;
            for (auto& byte : data) byte = draw() >> 7;
            put(top.s_axi_wdata, data);
            top.s_axi_wstrb = strobe;
            top.s_axi_wlast = write_beat + 1 == addressed.front().beats;
        }
        top.s_axi_wvalid = w_held;
        top.s_axi_rready = draw() % 100 >= stall;
        b_ready = draw() % 100 >= stall;
        top.s_axi_bready = b_ready;
        top.eval();

        const bool ar = top.s_axi_arvalid && top.s_axi_arready, aw = top.s_axi_awvalid && top.s_axi_awready;
        const bool w = top.s_axi_wvalid && top.s_axi_wready, b = top.s_axi_bvalid && b_ready;
        if (ar && !first) first = cycle;
        if (top.s_axi_rvalid && top.s_axi_rready) {
            const Burst& burst = reading.front();
            uint8_t got[BUS_BYTES];
            get(top.s_axi_rdata, got);
            const size_t at = burst.address + BUS_BYTES * beat;
            if (memcmp(got, &memory[at], BUS_BYTES) || top.s_axi_rresp) {
                if (!differing++) fprintf(stderr, "cycle %lu: address %#zx differs\n", (unsigned long)cycle, at);
            }
            bytes += BUS_BYTES;
            last = cycle;
            if (bool(top.s_axi_rlast) != (++beat == burst.beats)) ++differing;
            if (beat == burst.beats) {
                reading.pop_front();
                beat = 0;
                ++answered;
            }
        }
        if (w) {
            w_held = false;
            const Burst& burst = addressed.front();
            for (int i = 0; i < BUS_BYTES; ++i)
                if (strobe >> i & 1) memory[burst.address + BUS_BYTES * write_beat + i] = data[i];
            bytes += BUS_BYTES;
            last = cycle;
            if (++write_beat == burst.beats) {
                addressed.pop_front();
                write_beat = 0;
            }
        }
        if (b) {
            if (top.s_axi_bresp) ++differing;
            writing.pop_front();
            ++answered;
        }
        if (ar) ar_held = false;
        if (aw) aw_held = false;

        const int command = top.command;
        if (first) {
            ++commands[command];
            if (command == 1) refreshed = true;
            if (command == 3) opened = true;
            if (command == 5) {
                const uint64_t idle = cycle - last_read - words;
                if (last_read) (refreshed ? gaps_refresh : opened ? gaps_row : gaps_other) += idle;
                last_read = cycle;
                refreshed = opened = false;
            }
        }
        top.aclk = 1;
        top.eval();
        top.aclk = 0;
        top.eval();
        ++cycle;
        if (top.violation) break;
    }
    const uint64_t span = last - first + 1;
    printf(
        "{\"finished\": %s, \"violation\": %d, \"differing\": %lu, \"bursts\": %zu, \"bytes\": %lu, \"cycles\": %lu, "
        "\"refreshes\": %lu, \"actives\": %lu, \"precharges\": %lu, \"idle_refresh\": %lu, \"idle_row\": %lu, \"idle_other\": %lu}\n",
        next == count && reading.empty() && writing.empty() ? "true" : "false", int(top.violation), (unsigned long)differing,
        answered, (unsigned long)bytes, (unsigned long)span, (unsigned long)commands[1], (unsigned long)commands[3],
        (unsigned long)commands[2], (unsigned long)gaps_refresh, (unsigned long)gaps_row, (unsigned long)gaps_other);
    return top.violation || differing || cycle >= most;
}
