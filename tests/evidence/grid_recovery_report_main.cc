// Puts the linears of a real model on known 4-bit lattices, rounds them to
// bf16 as a published quantization-aware-trained checkpoint is, and counts the
// groups whose lattice quant::FindLattice gets back.
//
// usage: grid_recovery_report MODEL.gguf
//
// One row of the table per rule that made the lattices. Exits 0 only if every
// rule has at least 99.9 % of its groups back.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/base/float_types.h"
#include "kernels/quant/grid.h"
#include "kernels/quant/grid_recovery.h"
#include "kernels/quant/q4_0.h"
#include "services/common/error_info.h"
#include "services/model/gemma_config.h"
#include "services/model/gguf_reader.h"
#include "services/model/tensor_names.h"
#include "services/model/tensor_ops.h"

namespace onegrid {
namespace {

using quant::GridMatrix;
using quant::kGroup;
using quant::kInt4G32;

constexpr double kTarget = 0.999;

float Bf16(float v) { return kernels::Bf16ToFloat(kernels::FloatToBf16(v)); }

// w on lattices: codes, and one step of any value and sign for each group.
using Rule = std::function<absl::StatusOr<GridMatrix>(
    const std::vector<float>& w, int64_t rows, int64_t cols)>;

// step = amax / divisor, rounded to bf16 or left in f32.
Rule LargestOver(float divisor, bool bf16_step) {
  return [=](const std::vector<float>& w, int64_t rows,
             int64_t cols) -> absl::StatusOr<GridMatrix> {
    GridMatrix out{rows, cols, std::vector<int8_t>(w.size()), {}};
    for (size_t begin = 0; begin < w.size(); begin += kGroup) {
      float amax = 0;
      for (int i = 0; i < kGroup; ++i) {
        amax = std::max(amax, std::fabs(w[begin + i]));
      }
      const float step = bf16_step ? Bf16(amax / divisor) : amax / divisor;
      out.scales.push_back(step);
      if (step == 0) continue;
      for (int i = 0; i < kGroup; ++i) {
        out.codes[begin + i] = quant::RoundToCode(w[begin + i], step, kInt4G32);
      }
    }
    return out;
  };
}

absl::StatusOr<GridMatrix> LeastSquares(const std::vector<float>& w,
                                        int64_t rows, int64_t cols) {
  return quant::EncodeMatrix(w, rows, cols, kInt4G32);
}

absl::StatusOr<GridMatrix> LlamaCpp(const std::vector<float>& w, int64_t rows,
                                    int64_t cols) {
  ASSIGN_OR_RETURN(const std::vector<uint8_t> blocks,
                   quant::EncodeQ4_0(w, rows, cols));
  return quant::UnpackQ4_0(blocks, rows, cols);
}

// What became of the groups of one rule; groups of zeros are left out.
struct Tally {
  int64_t groups = 0;
  int64_t same = 0;        // the codes and the step
  int64_t same_codes = 0;  // the codes; a step that gives the same bf16 values
  int64_t equal = 0;       // another lattice with the same bf16 values
  int64_t held = 0;        // kept by int4_g32 (a subset of the above)
  int64_t snapped = 0;     // of held: step moved to 8 significant bits
  int64_t fresh = 0;       // what rounding to Q4_0 afresh would have kept

  int64_t recovered() const { return same + same_codes + equal; }
};

void CountGroup(const int8_t* codes, float step, absl::Span<const float> w,
                Tally& tally) {
  const std::optional<quant::Lattice> found = quant::FindLattice(w);
  if (!found.has_value()) return;
  bool same_values = true;
  bool same_codes = true;
  bool negated = true;
  for (int i = 0; i < kGroup; ++i) {
    const int code = found->codes[i];
    const float value = static_cast<float>(code) * found->step;
    same_values = same_values && Bf16(value) == w[i];
    same_codes = same_codes && code == codes[i];
    negated = negated && code == -codes[i];
  }
  if (!same_values) return;
  if ((same_codes && found->step == step) ||
      (negated && found->step == -step)) {
    ++tally.same;
  } else if (same_codes || negated) {
    ++tally.same_codes;
  } else {
    ++tally.equal;
  }
}

// The groups whose values a fresh Q4_0 file holds up to bf16 rounding.
absl::Status CountFresh(const std::vector<float>& w, int64_t rows, int64_t cols,
                        Tally& tally) {
  ASSIGN_OR_RETURN(const GridMatrix fresh, LlamaCpp(w, rows, cols));
  for (size_t g = 0; g < fresh.scales.size(); ++g) {
    bool kept = true;
    bool zero = true;
    for (size_t i = g * kGroup; i < (g + 1) * kGroup; ++i) {
      const float value = static_cast<float>(fresh.codes[i]) * fresh.scales[g];
      kept = kept && Bf16(value) == w[i];
      zero = zero && w[i] == 0;
    }
    tally.fresh += kept && !zero ? 1 : 0;
  }
  return absl::OkStatus();
}

absl::Status CountTensor(const Rule& rule, const std::vector<float>& w,
                         int64_t rows, int64_t cols, Tally& tally) {
  ASSIGN_OR_RETURN(const GridMatrix truth, rule(w, rows, cols));
  std::vector<float> values(w.size());
  quant::DequantizeMatrix(truth, absl::MakeSpan(values));
  for (float& value : values) value = Bf16(value);
  for (size_t g = 0; g < truth.scales.size(); ++g) {
    const absl::Span<const float> group =
        absl::MakeConstSpan(values).subspan(g * kGroup, kGroup);
    if (std::all_of(group.begin(), group.end(),
                    [](float v) { return v == 0; })) {
      continue;
    }
    ++tally.groups;
    CountGroup(truth.codes.data() + g * kGroup, truth.scales[g], group, tally);
  }
  ASSIGN_OR_RETURN(const quant::GridRecovery recovery,
                   quant::RecoverMatrix(values, rows, cols));
  tally.held += recovery.counts.on_grid;
  tally.snapped += recovery.counts.snapped;
  return CountFresh(values, rows, cols, tally);
}

double Percent(int64_t part, int64_t whole) {
  return whole == 0 ? 0 : 100.0 * static_cast<double>(part) / whole;
}

struct NamedRule {
  const char* name;
  Rule rule;
  Tally tally = {};
};

std::vector<NamedRule> Rules() {
  return {
      {"amax / 8, f32 step", LargestOver(8.0f, false)},
      {"amax / 8, bf16 step", LargestOver(8.0f, true)},
      {"amax / 7.5, f32 step", LargestOver(7.5f, false)},
      {"amax / 7.5, bf16 step", LargestOver(7.5f, true)},
      {"amax / 7, f32 step", LargestOver(7.0f, false)},
      {"amax / 7, bf16 step", LargestOver(7.0f, true)},
      {"peak code 6, bf16 step", LargestOver(6.0f, true)},
      {"peak code 5, f32 step", LargestOver(5.0f, false)},
      {"peak code 5, bf16 step", LargestOver(5.0f, true)},
      {"least squared error, 8 bits", LeastSquares},
      {"signed extremum / -8, f16", LlamaCpp},
  };
}

// Prints the table; true if every rule holds the target.
bool PrintTable(const std::vector<NamedRule>& rules) {
  std::printf("%-28s %9s %9s %9s %9s %9s %9s %9s %9s\n", "", "groups",
              "recovered", "same", "same", "other", "held by", "step", "fresh");
  std::printf("%-28s %9s %9s %9s %9s %9s %9s %9s %9s\n", "step rule", "", "%",
              "lattice %", "codes %", "equal %", "int4_g32%", "snapped %",
              "Q4_0 %");
  Tally all;
  bool good = true;
  for (const NamedRule& rule : rules) {
    const Tally& t = rule.tally;
    std::printf("%-28s %9lld %9.3f %9.3f %9.3f %9.3f %9.3f %9.3f %9.3f\n",
                rule.name, static_cast<long long>(t.groups),
                Percent(t.recovered(), t.groups), Percent(t.same, t.groups),
                Percent(t.same_codes, t.groups), Percent(t.equal, t.groups),
                Percent(t.held, t.groups), Percent(t.snapped, t.groups),
                Percent(t.fresh, t.groups));
    good = good && t.groups > 0 &&
           static_cast<double>(t.recovered()) >= kTarget * t.groups;
    all.groups += t.groups;
    all.same += t.recovered();
  }
  std::printf(
      "grid_recovery: %.3f %% of %lld groups recovered exactly, target >= "
      "%.1f %% by each of %zu rules\n",
      Percent(all.same, all.groups), static_cast<long long>(all.groups),
      100 * kTarget, rules.size());
  return good;
}

absl::StatusOr<bool> Run(const std::string& path) {
  ASSIGN_OR_RETURN(const std::unique_ptr<model::GgufFile> file,
                   model::GgufFile::Open(path));
  ASSIGN_OR_RETURN(const model::GemmaConfig config,
                   model::ConfigFromGguf(*file));
  std::vector<NamedRule> rules = Rules();
  for (const model::LinearSpec& spec : model::GemmaLinears(config)) {
    ASSIGN_OR_RETURN(const std::vector<float> w,
                     model::DequantizeTensor(*file->Find(spec.gguf_name)));
    for (NamedRule& rule : rules) {
      RETURN_IF_ERROR(CountTensor(rule.rule, w, spec.out, spec.in, rule.tally));
    }
  }
  return PrintTable(rules);
}

}  // namespace
}  // namespace onegrid

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: grid_recovery_report MODEL.gguf\n");
    return 2;
  }
  const absl::StatusOr<bool> good = onegrid::Run(argv[1]);
  if (!good.ok()) {
    std::fprintf(stderr, "grid_recovery_report: %s\n",
                 std::string(good.status().message()).c_str());
    return 1;
  }
  return *good ? 0 : 1;
}
