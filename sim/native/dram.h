// When the data of each burst moves: the C++ twin of sim/dram/timing.py, cycle for cycle. Change both or neither.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <set>
#include <stdexcept>
#include <vector>

namespace stmoe {

constexpr int64_t LONG_AGO = -(int64_t(1) << 40);
constexpr int64_t LINK_FRACTION = 1024;

inline int64_t ceil_div(int64_t a, int64_t b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }

struct MemoryStatistics {
    int64_t activates = 0, column_reads = 0, column_writes = 0, refreshes = 0, row_hits = 0, row_misses = 0;
};

class Timing {
  public:
    MemoryStatistics statistics;
    int64_t queue = 1;
    virtual ~Timing() = default;
    // The cycle from which each beat is ready, appended to `ready`; the address handshake was in `cycle`.
    virtual void schedule(bool write, int64_t address, int64_t length, int64_t cycle, std::vector<int64_t>& ready) = 0;
};

// As LinkConfig.parameters.
struct LinkParameters {
    int64_t kind, engine_ps, bus_bytes, queue, latency, beat;
};

class LinkTiming final : public Timing {
  public:
    explicit LinkTiming(const LinkParameters& p) : p_(p), cycle_(p.engine_ps * LINK_FRACTION) { queue = p.queue; }

    void schedule(bool, int64_t, int64_t length, int64_t cycle, std::vector<int64_t>& ready) override {
        const int64_t first = cycle * cycle_ + p_.latency;
        for (int64_t beat = 0; beat < length / p_.bus_bytes; beat++) {
            last_ = std::max(first, last_ + p_.beat);
            ready.push_back(ceil_div(last_, cycle_));
        }
    }

  private:
    LinkParameters p_;
    int64_t cycle_;
    int64_t last_ = LONG_AGO * LINK_FRACTION;
};

// As DramConfig.parameters; times in clocks unless named _ps.
struct DramParameters {
    int64_t kind, engine_ps, bus_bytes, queue, clock_ps, column_bytes, burst, banks, columns, trcd, trp, tras, trc, trrd,
        tfaw, trfc, trefi, twr, twtr, cl, cwl, tccd, trtp, read_to_write, controller_ps;
};

class DramTiming final : public Timing {
  public:
    explicit DramTiming(const DramParameters& p)
        : p_(p),
          row_(p.banks, -1),
          activated_(p.banks, LONG_AGO),
          precharge_from_(p.banks, LONG_AGO),
          activate_from_(p.banks, LONG_AGO),
          refresh_due_(p.trefi) {
        queue = p.queue;
        last_activates_.fill(LONG_AGO);
    }

    void schedule(bool write, int64_t address, int64_t length, int64_t cycle, std::vector<int64_t>& ready) override {
        const int64_t arrival = ceil_div((cycle + 1) * p_.engine_ps, p_.clock_ps);
        while (refresh_due_ <= arrival) refresh();
        claimed_.erase(claimed_.begin(), claimed_.lower_bound(arrival));
        const int64_t first = address / p_.column_bytes, last = (address + length - 1) / p_.column_bytes;
        done_.clear();
        for (int64_t c = first; c <= last; c++) done_.push_back(column(write, c, arrival));
        for (int64_t end = address + p_.bus_bytes; end <= address + length; end += p_.bus_bytes) {
            const int64_t ps = done_[(end - 1) / p_.column_bytes - first] * p_.clock_ps + p_.controller_ps;
            ready.push_back(ceil_div(ps, p_.engine_ps));
        }
    }

  private:
    int64_t claim(int64_t tick) {
        auto it = claimed_.lower_bound(tick);
        while (it != claimed_.end() && *it == tick) ++it, ++tick;
        claimed_.insert(it, tick);
        return tick;
    }

    int64_t column(bool write, int64_t c, int64_t arrival) {
        const int64_t bank = c / p_.columns % p_.banks, row = c / p_.columns / p_.banks;
        if (row_[bank] == row) {
            statistics.row_hits++;
        } else {
            statistics.row_misses++;
            open(bank, row, arrival);
        }
        int64_t tick;
        for (;;) {
            tick = std::max({arrival, activated_[bank] + p_.trcd, write ? write_from_ : read_from_});
            if (tick < refresh_due_) break;
            refresh();
            open(bank, row, arrival);
        }
        tick = claim(tick);
        return write ? write_column(bank, tick) : read_column(bank, tick);
    }

    int64_t read_column(int64_t bank, int64_t tick) {
        statistics.column_reads++;
        read_from_ = tick + p_.tccd;
        write_from_ = tick + p_.read_to_write;
        precharge_from_[bank] = std::max(precharge_from_[bank], tick + p_.trtp);
        return tick + p_.cl + p_.burst;
    }

    int64_t write_column(int64_t bank, int64_t tick) {
        statistics.column_writes++;
        const int64_t end = tick + p_.cwl + p_.burst;
        write_from_ = tick + p_.tccd;
        read_from_ = end + p_.twtr;
        precharge_from_[bank] = std::max(precharge_from_[bank], end + p_.twr);
        return end;
    }

    void open(int64_t bank, int64_t row, int64_t arrival) {
        int64_t precharge, activate;
        for (;;) {
            precharge = std::max(arrival, precharge_from_[bank]);
            const int64_t ready = row_[bank] < 0 ? activate_from_[bank] : precharge + p_.trp;
            activate = std::max({arrival, ready, activated_[bank] + p_.trc, last_activates_[3] + p_.trrd,
                                 last_activates_[0] + p_.tfaw});
            if (activate < refresh_due_) break;
            refresh();
        }
        if (row_[bank] >= 0) {
            precharge = claim(precharge);
            activate = std::max(activate, precharge + p_.trp);
        }
        activate = claim(activate);
        statistics.activates++;
        row_[bank] = row;
        activated_[bank] = activate;
        precharge_from_[bank] = activate + p_.tras;
        std::rotate(last_activates_.begin(), last_activates_.begin() + 1, last_activates_.end());
        last_activates_[3] = activate;
    }

    void refresh() {
        int64_t tick = refresh_due_, precharge = refresh_due_;
        bool any_open = false;
        for (int64_t bank = 0; bank < p_.banks; bank++) {
            tick = std::max({tick, activate_from_[bank], activated_[bank] + p_.trc});
            if (row_[bank] < 0) continue;
            any_open = true;
            precharge = std::max(precharge, precharge_from_[bank]);
        }
        if (any_open) tick = std::max(tick, claim(precharge) + p_.trp);
        tick = claim(tick);
        statistics.refreshes++;
        std::fill(row_.begin(), row_.end(), -1);
        std::fill(activate_from_.begin(), activate_from_.end(), tick + p_.trfc);
        refresh_due_ += p_.trefi;
    }

    DramParameters p_;
    std::vector<int64_t> row_, activated_, precharge_from_, activate_from_, done_;
    std::array<int64_t, 4> last_activates_;
    int64_t read_from_ = LONG_AGO, write_from_ = LONG_AGO, refresh_due_;
    std::set<int64_t> claimed_;
};

// `parameters` is OperatingPoint.parameters.
inline std::unique_ptr<Timing> make_timing(const int64_t* parameters, int count) {
    if (count == sizeof(DramParameters) / 8 && parameters[0] == 0)
        return std::make_unique<DramTiming>(*reinterpret_cast<const DramParameters*>(parameters));
    if (count == sizeof(LinkParameters) / 8 && parameters[0] == 1)
        return std::make_unique<LinkTiming>(*reinterpret_cast<const LinkParameters*>(parameters));
    throw std::invalid_argument("memory parameters do not fit the driver");
}

}  // namespace stmoe
