// The memory as an AXI4 slave: the C++ twin of sim/dram/model.py, cycle for cycle. Change both or neither.
#pragma once

#include <cstring>
#include <deque>
#include <string>
#include <utility>

#include "dram.h"

namespace stmoe {

constexpr int MAX_BUS_BYTES = 64;
constexpr int RESP_OKAY = 0, RESP_SLVERR = 2, RESP_DECERR = 3;

struct MasterSignals {
    bool arvalid = false, rready = false, awvalid = false, wvalid = false, wlast = false, bready = false;
    uint64_t araddr = 0, awaddr = 0, wstrb = 0;
    unsigned arlen = 0, arid = 0, arsize = 0, arburst = 0, awlen = 0, awid = 0, awsize = 0, awburst = 0;
    uint8_t wdata[MAX_BUS_BYTES] = {};
};

struct SlaveSignals {
    bool arready = false, rvalid = false, rlast = false, awready = false, wready = false, bvalid = false;
    unsigned rid = 0, rresp = 0, bid = 0, bresp = 0;
    uint8_t rdata[MAX_BUS_BYTES] = {};
};

class AxiMemory {
  public:
    SlaveSignals outputs;
    std::string violation;  // the first breach of the AXI rules by the master, or empty

    AxiMemory(const int64_t* parameters, int count, uint8_t* memory, uint64_t size)
        : parameters_(parameters, parameters + count), bus_bytes_(parameters[2]), memory_(memory), size_(size) {
        reset();
    }

    void reset() {
        timing_ = make_timing(parameters_.data(), static_cast<int>(parameters_.size()));
        cycle_ = 0;
        reads_.clear();
        write_ = Write{};
        outputs = SlaveSignals{};
        previous_ = MasterSignals{};
        violation.clear();
    }

    void set_faults(const uint64_t* ranges, int count) {
        faults_.clear();
        for (int i = 0; i < count; i++) faults_.emplace_back(ranges[2 * i], ranges[2 * i + 1]);
    }

    const MemoryStatistics& statistics() const { return timing_->statistics; }
    size_t outstanding_reads() const { return reads_.size(); }
    bool idle() const { return reads_.empty() && !write_.active; }

    // Nothing is in flight: time alone passes, and the DRAM's refreshes are caught up with by the next request.
    void skip(int64_t cycles) { cycle_ += cycles; }

    void step(const MasterSignals& master) {
        check(master);
        if (master.arvalid && outputs.arready) {
            reads_.emplace_back();
            Read& read = reads_.back();
            read.address = master.araddr;
            read.tag = master.arid;
            timing_->schedule(false, read.address, (master.arlen + 1) * bus_bytes_, cycle_, read.ready);
        }
        if (outputs.rvalid && master.rready) {
            reads_.front().beat++;
            if (outputs.rlast) reads_.pop_front();
        }
        step_write(master);
        cycle_++;
        drive();
    }

  private:
    struct Read {
        uint64_t address = 0;
        unsigned tag = 0;
        size_t beat = 0;
        std::vector<int64_t> ready;
    };
    struct Write {
        bool active = false, scheduled = false;
        uint64_t address = 0;
        int64_t length = 0, beat = 0, done = 0;
        unsigned tag = 0, response = RESP_OKAY;
    };

    void step_write(const MasterSignals& master) {
        if (master.awvalid && outputs.awready) {
            write_ = Write{};
            write_.active = true;
            write_.address = master.awaddr;
            write_.length = (master.awlen + 1) * bus_bytes_;
            write_.tag = master.awid;
            return;
        }
        if (!write_.active) return;
        if (outputs.bvalid && master.bready) {
            write_.active = false;
            return;
        }
        if (!(master.wvalid && outputs.wready)) return;
        const uint64_t address = write_.address + write_.beat * bus_bytes_;
        const unsigned response = this->response(address);
        write_.response = std::max(write_.response, response);
        for (int64_t lane = 0; response == RESP_OKAY && lane < bus_bytes_; lane++)
            if (master.wstrb >> lane & 1) memory_[address + lane] = master.wdata[lane];
        write_.beat++;
        const bool last = write_.beat * bus_bytes_ == write_.length;
        if (last != master.wlast) violate("wlast does not mark the last beat of the burst");
        if (!last) return;
        scratch_.clear();
        timing_->schedule(true, write_.address, write_.length, cycle_, scratch_);
        write_.done = scratch_.back();
        write_.scheduled = true;
    }

    unsigned response(uint64_t address) const {
        if (address + bus_bytes_ > size_) return RESP_DECERR;
        for (const auto& [low, high] : faults_)
            if (low < address + bus_bytes_ && address < high) return RESP_SLVERR;
        return RESP_OKAY;
    }

    void drive() {
        outputs.arready = static_cast<int64_t>(reads_.size()) < timing_->queue;
        outputs.awready = !write_.active;
        outputs.wready = write_.active && write_.beat * bus_bytes_ < write_.length;
        outputs.rvalid = !reads_.empty() && reads_.front().ready[reads_.front().beat] <= cycle_;
        if (outputs.rvalid) {
            const Read& read = reads_.front();
            const uint64_t address = read.address + read.beat * bus_bytes_;
            outputs.rid = read.tag;
            outputs.rresp = response(address);
            outputs.rlast = read.beat + 1 == read.ready.size();
            if (outputs.rresp == RESP_OKAY) {
                std::memcpy(outputs.rdata, memory_ + address, bus_bytes_);
            } else {
                std::memset(outputs.rdata, 0, bus_bytes_);
            }
        }
        outputs.bvalid = write_.active && write_.scheduled && write_.done <= cycle_;
        outputs.bid = write_.tag;
        outputs.bresp = write_.response;
    }

    // The rules a burst and a waiting channel must keep; the full checker is bound in the cocotb regressions.
    void check(const MasterSignals& master) {
        const MasterSignals& p = previous_;
        if (p.arvalid && !accepted_ar_ &&
            (!master.arvalid || master.araddr != p.araddr || master.arlen != p.arlen || master.arid != p.arid))
            violate("AR changed while it waited");
        if (p.awvalid && !accepted_aw_ && (!master.awvalid || master.awaddr != p.awaddr || master.awlen != p.awlen))
            violate("AW changed while it waited");
        if (p.wvalid && !accepted_w_ && (!master.wvalid || master.wstrb != p.wstrb || master.wlast != p.wlast ||
                                         std::memcmp(master.wdata, p.wdata, bus_bytes_) != 0))
            violate("W changed while it waited");
        if (master.arvalid) check_burst("AR", master.araddr, master.arlen, master.arsize, master.arburst);
        if (master.awvalid) check_burst("AW", master.awaddr, master.awlen, master.awsize, master.awburst);
        accepted_ar_ = outputs.arready;
        accepted_aw_ = outputs.awready;
        accepted_w_ = outputs.wready;
        previous_ = master;
    }

    void check_burst(const char* channel, uint64_t address, unsigned length, unsigned size, unsigned burst) {
        const uint64_t bytes = (length + 1) * bus_bytes_;
        if (burst != 1) violate(std::string(channel) + ": burst type is not INCR");
        if (int64_t(1) << size != bus_bytes_) violate(std::string(channel) + ": beats are narrower than the bus");
        if (address % bus_bytes_ != 0) violate(std::string(channel) + ": address is not aligned to the bus");
        if (address / 4096 != (address + bytes - 1) / 4096) violate(std::string(channel) + ": burst crosses 4 KB");
    }

    void violate(const std::string& what) {
        if (violation.empty()) violation = what + " (memory cycle " + std::to_string(cycle_) + ")";
    }

    std::vector<int64_t> parameters_, scratch_;
    int64_t bus_bytes_;
    uint8_t* memory_;
    uint64_t size_;
    std::unique_ptr<Timing> timing_;
    int64_t cycle_ = 0;
    std::deque<Read> reads_;
    Write write_;
    std::vector<std::pair<uint64_t, uint64_t>> faults_;
    MasterSignals previous_;
    bool accepted_ar_ = false, accepted_aw_ = false, accepted_w_ = false;
};

}  // namespace stmoe
