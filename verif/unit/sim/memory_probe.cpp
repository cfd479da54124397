// AxiMemory, one edge at a time, for the comparison with its Python twin.
#include "memory.h"

using namespace stmoe;

namespace {

void unpack(const uint64_t* in, MasterSignals& m, int64_t bus_bytes) {
    m.arvalid = in[0], m.araddr = in[1], m.arlen = in[2], m.arid = in[3], m.rready = in[4];
    m.awvalid = in[5], m.awaddr = in[6], m.awlen = in[7], m.awid = in[8], m.wvalid = in[9];
    m.wstrb = in[10], m.wlast = in[11], m.bready = in[12];
    m.arsize = m.awsize = __builtin_ctzll(bus_bytes), m.arburst = m.awburst = 1;
    std::memcpy(m.wdata, in + 13, bus_bytes);
}

void pack(const SlaveSignals& s, uint64_t* out, int64_t bus_bytes) {
    const uint64_t fields[] = {s.arready, s.rvalid, s.rid,    s.rresp, s.rlast,
                               s.awready, s.wready, s.bvalid, s.bid,   s.bresp};
    std::memcpy(out, fields, sizeof fields);
    std::memcpy(out + 10, s.rdata, bus_bytes);
}

}  // namespace

extern "C" {

void* probe_create(const int64_t* parameters, int count, uint8_t* memory, uint64_t size, const uint64_t* faults,
                   int fault_count) {
    auto* memory_model = new AxiMemory(parameters, count, memory, size);
    memory_model->set_faults(faults, fault_count);
    return memory_model;
}

void probe_destroy(void* handle) { delete static_cast<AxiMemory*>(handle); }

void probe_step(void* handle, int64_t bus_bytes, const uint64_t* in, uint64_t* out) {
    auto& model = *static_cast<AxiMemory*>(handle);
    MasterSignals master;
    unpack(in, master, bus_bytes);
    model.step(master);
    pack(model.outputs, out, bus_bytes);
}

void probe_skip(void* handle, int64_t cycles) { static_cast<AxiMemory*>(handle)->skip(cycles); }

void probe_statistics(void* handle, int64_t* out) {
    std::memcpy(out, &static_cast<AxiMemory*>(handle)->statistics(), sizeof(MemoryStatistics));
}

const char* probe_violation(void* handle) { return static_cast<AxiMemory*>(handle)->violation.c_str(); }
}
