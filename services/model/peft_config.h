// What PEFT's adapter_config.json says about the matrices beside it.
#ifndef SERVICES_MODEL_PEFT_CONFIG_H_
#define SERVICES_MODEL_PEFT_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/model/name_pattern.h"

namespace onegrid::model {

// A LoRA's ranks and alphas. Which modules it is on, the tensors say. Immutable
// after Read.
//
// Keys of rank_pattern and alpha_pattern are regular expressions that PEFT
// (utils/other.py, get_pattern_key) fits to a module's name or to its end
// behind a dot, the first that fits counting. Read are names, ^ and $ at the
// ends, \. and . (a dot, both), .* and \d+ or [0-9]+.
class PeftConfig {
 public:
  // Errors of common::ReadFile. DataLoss (CORRUPT_FILE; path): not JSON, a
  // number that is none or out of its range. InvalidArgument
  // (UNSUPPORTED_ADAPTER; path, field): a pattern beyond those, or whatever
  // makes the weights another thing than W + scale B A: use_dora, bias,
  // modules_to_save, an init_lora_weights that changes W, ...
  // fan_in_fan_out is not looked at: PEFT does not either on linears.
  static absl::StatusOr<PeftConfig> Read(const std::string& path);

  // `module` as the adapter's file names it.
  int64_t RankOf(absl::string_view module) const;
  double AlphaOf(absl::string_view module) const;
  // The scale is alpha / sqrt(rank) instead of alpha / rank.
  bool use_rslora() const { return use_rslora_; }
  const std::string& text() const { return text_; }

 private:
  // A value for the modules that one of the patterns fits.
  struct Entry {
    std::vector<NamePattern> patterns;
    double value;
  };

  PeftConfig() = default;
  static double ValueOf(absl::string_view module,
                        const std::vector<Entry>& entries, double otherwise);

  std::string text_;
  int64_t rank_ = 0;
  double alpha_ = 0;
  bool use_rslora_ = false;
  std::vector<Entry> ranks_;
  std::vector<Entry> alphas_;

  friend class PeftConfigReader;
};

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_PEFT_CONFIG_H_
