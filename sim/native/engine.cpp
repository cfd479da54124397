// The compiled back-end: a Verilated stmoe_engine, the memory behind its AXI port and the ends of its streams, behind a C API.
//
// One step is one clock cycle. Its outputs are sampled, memory and streams move on, and the rising edge is evaluated together with
// the inputs of the next cycle: all sides are registered. The bench that sim/build.py puts around the engine takes every input over
// at the edge, so that the engine is evaluated once a cycle; s_axil and s_axis are loaded within a cycle when Python asks for it.
#include <deque>
#include <string>
#include <vector>

#include "Vstmoe_engine.h"
#include "memory.h"
#include "verilated.h"
#include "verilated_syms.h"
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif

namespace stmoe {
namespace {

constexpr int64_t AXIL_LIMIT = 10000;
// Cycles of quiescence before time may be skipped: longer than any register stage in front of a counter.
constexpr int64_t QUIET_CYCLES = 8;

enum Stop : int64_t { STOP_RESULT = 1, STOP_IRQ = 2, STOP_SENT = 4, STOP_QUIESCENT = 8 };
enum Reason : int64_t { REASON_STALLED = 1 << 8, REASON_VIOLATION = 1 << 9 };

// Ports of up to 64 bits are integers, wider ones arrays of 32-bit words.
template <typename T>
void put(T& port, const uint8_t* bytes) {
    std::memcpy(&port, bytes, sizeof port);
}
template <std::size_t N>
void put(VlWide<N>& port, const uint8_t* bytes) {
    std::memcpy(port.data(), bytes, 4 * N);
}
template <typename T>
void get(const T& port, uint8_t* bytes) {
    std::memcpy(bytes, &port, sizeof port);
}
template <std::size_t N>
void get(const VlWide<N>& port, uint8_t* bytes) {
    std::memcpy(bytes, port.data(), 4 * N);
}

constexpr int64_t BUS_BYTES = sizeof(Vstmoe_engine::m_axi_rdata);

struct Result {
    std::vector<uint8_t> bytes;
    int64_t first_cycle = 0, last_cycle = 0;
};

struct Message {
    std::vector<uint8_t> bytes;
    size_t position = 0;
};

// A signal inside the engine, made public by the build.
struct Probe {
    const uint8_t* data = nullptr;
    int bits = 0;
    uint64_t read() const {
        uint64_t value = 0;
        std::memcpy(&value, data, bits > 32 ? 8 : bits > 16 ? 4 : bits > 8 ? 2 : 1);
        return value;
    }
    void write(uint64_t value) const {
        std::memcpy(const_cast<uint8_t*>(data), &value, bits > 32 ? 8 : bits > 16 ? 4 : bits > 8 ? 2 : 1);
    }
};

struct Watch {
    Probe probe;
    int event = -1;  // index into Engine::events_ for the driver's own signals
    uint64_t last = 0;
    std::vector<int64_t> cycles;
    std::vector<uint64_t> values;
};

const char* const EVENTS[] = {"@ar", "@r", "@aw", "@s_axis", "@m_axis", "@irq", "@quiescent", "@reads"};

class Engine {
  public:
    std::string error;
    std::deque<Result> results;
    std::vector<Watch> watches;
    int64_t sent_cycle = -1;

    Engine(const int64_t* parameters, int count, uint8_t* memory, uint64_t size, int64_t seed)
        : memory_(parameters, count, memory, size) {
        if (parameters[2] != BUS_BYTES) throw std::invalid_argument("the memory's bus is not as wide as the engine's");
        context_.traceEverOn(true);
        // Without a seed all registers without reset start at zero; with one, at random values.
        context_.randReset(seed < 0 ? 0 : 2);
        if (seed >= 0) context_.randSeed(static_cast<int>(seed) + 1);
        top_ = std::make_unique<Vstmoe_engine>(&context_, "TOP");
        reset(4);
    }

    ~Engine() {
#if VM_TRACE
        if (vcd_) vcd_->close();
#endif
        top_->final();
    }

    void reset(int64_t cycles) {
        memory_.reset();
        sending_.clear();
        results.clear();
        receiving_ = Result{};
        top_->s_axil_awvalid = top_->s_axil_wvalid = top_->s_axil_arvalid = 0;
        top_->s_axil_bready = top_->s_axil_rready = 1;
        top_->m_axis_tready = 1;
        drive_memory();
        drive_streams();
        load();
        // The engine sees the reset from the edge after the first to the last one.
        for (int64_t i = 0; i <= cycles; i++) {
            top_->aresetn = i == cycles;
            edge();
        }
        cycle_ = last_progress_ = quiet_ = 0;
        sent_cycle = -1;
        for (Watch& watch : watches) watch.cycles.clear(), watch.values.clear();
    }

    void send(const uint8_t* bytes, int64_t size) {
        Message message;
        message.bytes.assign(bytes, bytes + size);
        message.bytes.resize((size + BUS_BYTES - 1) / BUS_BYTES * BUS_BYTES);
        sending_.push_back(std::move(message));
        last_progress_ = cycle_;
        drive_streams();
        load();
    }

    int64_t run(int64_t limit, int64_t stop, int64_t stall_limit, bool fast_forward) {
        const int64_t end = cycle_ + limit;
        for (;;) {
            if (!memory_.violation.empty()) {
                error = memory_.violation;
                return REASON_VIOLATION;
            }
            if (const int64_t reason = stop & conditions()) return reason;
            if (cycle_ >= end) return 0;
            if ((stop & (STOP_RESULT | STOP_IRQ | STOP_SENT)) && cycle_ - last_progress_ >= stall_limit)
                return REASON_STALLED;
            if (fast_forward && can_skip()) {
                // Nothing else can happen but the end of the run or of the caller's patience.
                const bool waiting = stop & (STOP_RESULT | STOP_IRQ | STOP_SENT);
                skip(waiting ? std::min(end, last_progress_ + stall_limit) - cycle_ : end - cycle_);
                continue;
            }
            step();
        }
    }

    int axil(bool write, uint32_t address, uint32_t* data) {
        if (write) {
            top_->s_axil_awaddr = address, top_->s_axil_awvalid = 1;
            top_->s_axil_wdata = *data, top_->s_axil_wstrb = 15, top_->s_axil_wvalid = 1;
        } else {
            top_->s_axil_araddr = address, top_->s_axil_arvalid = 1;
        }
        load();
        for (int64_t i = 0; i < AXIL_LIMIT; i++) {
            const bool aw = top_->s_axil_awvalid && top_->s_axil_awready, w = top_->s_axil_wvalid && top_->s_axil_wready;
            const bool ar = top_->s_axil_arvalid && top_->s_axil_arready;
            const bool done = write ? top_->s_axil_bvalid : top_->s_axil_rvalid;
            const int response = write ? top_->s_axil_bresp : top_->s_axil_rresp;
            if (done && !write) *data = top_->s_axil_rdata;
            if (aw) top_->s_axil_awvalid = 0;
            if (w) top_->s_axil_wvalid = 0;
            if (ar) top_->s_axil_arvalid = 0;
            step();
            if (!done) continue;
            last_progress_ = cycle_;
            return response;
        }
        error = "no answer on s_axil for " + std::to_string(AXIL_LIMIT) + " cycles";
        return -1;
    }

    bool find(const char* name, Probe& probe) {
        const std::string path = name;
        const size_t dot = path.rfind('.');
        if (dot == std::string::npos) return false;
        const VerilatedScope* scope = context_.scopeFind(("TOP.stmoe_bench." + path.substr(0, dot)).c_str());
        const VerilatedVar* var = scope ? scope->varFind(path.substr(dot + 1).c_str()) : nullptr;
        if (!var || var->entBits() > 64) return false;
        probe.data = static_cast<const uint8_t*>(var->datap());
        probe.bits = static_cast<int>(var->entBits());
        return true;
    }

    int watch(const char* name) {
        Watch watch;
        for (size_t i = 0; i < std::size(EVENTS); i++)
            if (std::strcmp(name, EVENTS[i]) == 0) watch.event = static_cast<int>(i);
        if (watch.event < 0 && !find(name, watch.probe)) return -1;
        watches.push_back(watch);
        return static_cast<int>(watches.size()) - 1;
    }

    bool add_free_running(const char* name) {
        Counter counter;
        if (!find(name, counter.probe)) return false;
        free_running_.push_back(counter);
        return true;
    }

    bool trace(const char* path) {
#if VM_TRACE
        vcd_ = std::make_unique<VerilatedVcdC>();
        top_->trace(vcd_.get(), 99);
        vcd_->open(path);
        return vcd_->isOpen();
#else
        (void)path;
        return false;
#endif
    }

    void state(int64_t* out) const {
        int64_t beats = 0;
        for (const Message& message : sending_) beats += (message.bytes.size() - message.position) / BUS_BYTES;
        const int64_t values[] = {cycle_,
                                  last_progress_,
                                  top_->quiescent,
                                  top_->irq,
                                  static_cast<int64_t>(memory_.outstanding_reads()),
                                  memory_.idle(),
                                  static_cast<int64_t>(sending_.size()),
                                  beats,
                                  static_cast<int64_t>(receiving_.bytes.size()) / BUS_BYTES,
                                  static_cast<int64_t>(results.size()),
                                  sent_cycle,
                                  skipped_};
        std::memcpy(out, values, sizeof values);
    }

    AxiMemory& memory() { return memory_; }

  private:
    struct Counter {
        Probe probe;
        uint64_t previous = 0, delta = 0;
        bool steady = false;
    };

    int64_t conditions() const {
        int64_t met = results.empty() ? 0 : STOP_RESULT;
        if (top_->irq) met |= STOP_IRQ;
        if (sending_.empty()) met |= STOP_SENT;
        if (top_->quiescent && sending_.empty() && memory_.idle()) met |= STOP_QUIESCENT;
        return met;
    }

    bool can_skip() const {
        if (quiet_ < QUIET_CYCLES || !sending_.empty() || !memory_.idle() || top_->m_axis_tvalid) return false;
        for (const Counter& counter : free_running_)
            if (!counter.steady) return false;
        return true;
    }

    void skip(int64_t cycles) {
        for (Counter& counter : free_running_) {
            counter.previous = counter.probe.read() + counter.delta * static_cast<uint64_t>(cycles);
            counter.probe.write(counter.previous);
        }
        memory_.skip(cycles);
        cycle_ += cycles;
        skipped_ += cycles;
        context_.timeInc(2 * cycles);
        top_->eval();
    }

    void step() {
        sample();
        for (Watch& watch : watches) record(watch);
        memory_.step(master_);
        step_streams();
        drive_memory();
        drive_streams();
        edge();
        cycle_++;
        if (events_[0] | events_[1] | events_[2] | events_[3] | events_[4] | wrote_) last_progress_ = cycle_;
        quiet_ = top_->quiescent && sending_.empty() && memory_.idle() ? quiet_ + 1 : 0;
        if (quiet_ == 0) return;
        for (Counter& counter : free_running_) {
            const uint64_t value = counter.probe.read(), delta = value - counter.previous;
            counter.steady = quiet_ > 2 && delta == counter.delta;
            counter.delta = delta;
            counter.previous = value;
        }
    }

    // The falling edge changes nothing in the engine.
    void edge() {
        top_->aclk = 1;
        top_->eval();
        dump();
        top_->aclk = 0;
        top_->eval();
        dump();
    }

    // s_axil and s_axis as driven, in the present cycle.
    void load() {
        top_->load = 1;
        top_->eval();
        top_->load = 0;
        top_->eval();
    }

    void dump() {
        context_.timeInc(1);
#if VM_TRACE
        if (vcd_) vcd_->dump(context_.time());
#endif
    }

    void sample() {
        MasterSignals& m = master_;
        const SlaveSignals& s = memory_.outputs;
        m.arvalid = top_->m_axi_arvalid;
        if (m.arvalid) {
            m.araddr = top_->m_axi_araddr, m.arlen = top_->m_axi_arlen, m.arid = top_->m_axi_arid;
            m.arsize = top_->m_axi_arsize, m.arburst = top_->m_axi_arburst;
        }
        m.rready = top_->m_axi_rready;
        m.awvalid = top_->m_axi_awvalid;
        if (m.awvalid) {
            m.awaddr = top_->m_axi_awaddr, m.awlen = top_->m_axi_awlen, m.awid = top_->m_axi_awid;
            m.awsize = top_->m_axi_awsize, m.awburst = top_->m_axi_awburst;
        }
        m.wvalid = top_->m_axi_wvalid;
        if (m.wvalid) {
            m.wstrb = top_->m_axi_wstrb, m.wlast = top_->m_axi_wlast;
            get(top_->m_axi_wdata, m.wdata);
        }
        m.bready = top_->m_axi_bready;
        taken_ = top_->s_axis_tvalid && top_->s_axis_tready;
        given_ = top_->m_axis_tvalid && top_->m_axis_tready;
        if (given_) {
            get(top_->m_axis_tdata, beat_);
            beat_last_ = top_->m_axis_tlast;
        }
        wrote_ = (m.wvalid && s.wready) || (s.bvalid && m.bready);
        events_[0] = m.arvalid && s.arready ? 1 + m.arid : 0;
        events_[1] = s.rvalid && m.rready ? 1 + s.rid : 0;
        events_[2] = m.awvalid && s.awready;
        events_[3] = taken_;
        events_[4] = given_;
        events_[5] = top_->irq;
        events_[6] = top_->quiescent;
        events_[7] = memory_.outstanding_reads();
    }

    void record(Watch& watch) {
        const uint64_t value = watch.event >= 0 ? events_[watch.event] : watch.probe.read();
        if (!watch.cycles.empty() && value == watch.last) return;
        watch.last = value;
        watch.cycles.push_back(cycle_);
        watch.values.push_back(value);
    }

    void step_streams() {
        if (taken_) {
            Message& message = sending_.front();
            message.position += BUS_BYTES;
            if (message.position == message.bytes.size()) {
                sending_.pop_front();
                sent_cycle = cycle_;
            }
        }
        if (!given_) return;
        if (receiving_.bytes.empty()) receiving_.first_cycle = cycle_;
        receiving_.bytes.insert(receiving_.bytes.end(), beat_, beat_ + BUS_BYTES);
        if (!beat_last_) return;
        receiving_.last_cycle = cycle_;
        results.push_back(std::move(receiving_));
        receiving_ = Result{};
    }

    // What the bench takes over at the next edge.
    void drive_memory() {
        const SlaveSignals& s = memory_.outputs;
        top_->m_axi_arready = s.arready;
        top_->m_axi_rvalid = s.rvalid;
        if (s.rvalid) {
            top_->m_axi_rid = s.rid, top_->m_axi_rresp = s.rresp, top_->m_axi_rlast = s.rlast;
            put(top_->m_axi_rdata, s.rdata);
        }
        top_->m_axi_awready = s.awready;
        top_->m_axi_wready = s.wready;
        top_->m_axi_bvalid = s.bvalid;
        top_->m_axi_bid = s.bid, top_->m_axi_bresp = s.bresp;
    }

    void drive_streams() {
        top_->s_axis_tvalid = !sending_.empty();
        if (sending_.empty()) return;
        const Message& message = sending_.front();
        put(top_->s_axis_tdata, message.bytes.data() + message.position);
        top_->s_axis_tlast = message.position + BUS_BYTES == message.bytes.size();
    }

    VerilatedContext context_;
    AxiMemory memory_;
    std::unique_ptr<Vstmoe_engine> top_;
#if VM_TRACE
    std::unique_ptr<VerilatedVcdC> vcd_;
#endif
    std::deque<Message> sending_;
    Result receiving_;
    std::vector<Counter> free_running_;
    MasterSignals master_;
    uint64_t events_[std::size(EVENTS)] = {};
    uint8_t beat_[MAX_BUS_BYTES] = {};
    bool taken_ = false, given_ = false, beat_last_ = false, wrote_ = false;
    int64_t cycle_ = 0, last_progress_ = 0, quiet_ = 0, skipped_ = 0;
};

Engine* engine(void* handle) { return static_cast<Engine*>(handle); }

}  // namespace
}  // namespace stmoe

using namespace stmoe;

extern "C" {

int64_t stmoe_bus_bytes() { return BUS_BYTES; }

void* stmoe_create(const int64_t* parameters, int count, uint8_t* memory, uint64_t size, int64_t seed) {
    try {
        return new Engine(parameters, count, memory, size, seed);
    } catch (const std::exception&) {
        return nullptr;
    }
}

void stmoe_destroy(void* handle) { delete engine(handle); }
const char* stmoe_error(void* handle) { return engine(handle)->error.c_str(); }
void stmoe_reset(void* handle, int64_t cycles) { engine(handle)->reset(cycles); }
void stmoe_send(void* handle, const uint8_t* bytes, int64_t size) { engine(handle)->send(bytes, size); }

int64_t stmoe_run(void* handle, int64_t limit, int64_t stop, int64_t stall_limit, int fast_forward) {
    return engine(handle)->run(limit, stop, stall_limit, fast_forward != 0);
}

// AXI response, or -1 without an answer.
int stmoe_axil_write(void* handle, uint32_t address, uint32_t data) { return engine(handle)->axil(true, address, &data); }
int stmoe_axil_read(void* handle, uint32_t address, uint32_t* data) { return engine(handle)->axil(false, address, data); }

int64_t stmoe_result_size(void* handle) {
    const auto& results = engine(handle)->results;
    return results.empty() ? -1 : static_cast<int64_t>(results.front().bytes.size());
}

void stmoe_receive(void* handle, uint8_t* bytes, int64_t* cycles) {
    auto& results = engine(handle)->results;
    const Result& result = results.front();
    std::memcpy(bytes, result.bytes.data(), result.bytes.size());
    cycles[0] = result.first_cycle, cycles[1] = result.last_cycle;
    results.pop_front();
}

void stmoe_state(void* handle, int64_t* out) { engine(handle)->state(out); }

void stmoe_memory_statistics(void* handle, int64_t* out) {
    std::memcpy(out, &engine(handle)->memory().statistics(), sizeof(MemoryStatistics));
}

void stmoe_set_faults(void* handle, const uint64_t* ranges, int count) {
    engine(handle)->memory().set_faults(ranges, count);
}

// 1, or 0 when no such signal is public.
int stmoe_add_free_running(void* handle, const char* name) { return engine(handle)->add_free_running(name); }

// Index of the watch, or -1 when no such signal is public.
int stmoe_watch(void* handle, const char* name) { return engine(handle)->watch(name); }

int64_t stmoe_watch_runs(void* handle, int index) {
    return static_cast<int64_t>(engine(handle)->watches[index].cycles.size());
}

void stmoe_watch_read(void* handle, int index, int64_t* cycles, uint64_t* values) {
    const auto& watch = engine(handle)->watches[index];
    std::copy(watch.cycles.begin(), watch.cycles.end(), cycles);
    std::copy(watch.values.begin(), watch.values.end(), values);
}

int stmoe_peek(void* handle, const char* name, uint64_t* value) {
    Probe probe;
    if (!engine(handle)->find(name, probe)) return 0;
    *value = probe.read();
    return 1;
}

int stmoe_trace(void* handle, const char* path) { return engine(handle)->trace(path); }
}
