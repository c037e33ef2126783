// Which linears get a LoRA, of which rank and scale.
//
// The words are PEFT's: an adapter is W x + scale * B (A x), scale = alpha /
// rank, or alpha / sqrt(rank) for a rank-stabilized one (rsLoRA,
// arXiv 2312.03732).
#ifndef SERVICES_FINETUNER_LORA_PLAN_H_
#define SERVICES_FINETUNER_LORA_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/model/tensor_names.h"

namespace onegrid::finetuner {

// Another rank or alpha for some linears.
struct LoraPattern {
  std::string modules;  // A model::ModulePattern.
  int64_t rank = 0;     // 0: LoraOptions' rank.
  double alpha = 0;     // 0: LoraOptions' alpha.
};

// Shape of an adapter.
struct LoraOptions {
  int64_t rank = 16;
  double alpha = 32;
  double dropout = 0;
  // model::ModulePatterns: kinds of linears ("q_proj"), or globs on their
  // names; empty means all.
  std::vector<std::string> targets;
  // For each linear the first that matches it counts.
  std::vector<LoraPattern> patterns;
  bool use_rslora = false;
  // Learning rate of B over that of A (LoRA+, arXiv 2402.12354).
  double lora_plus_ratio = 1;
  // Digest of the adapter that training begins with; empty: a random one.
  std::string initial;
};

// The LoRA of one linear.
struct LoraShape {
  int64_t rank = 0;  // 0: none.
  double alpha = 0;
  double scale = 0;
};

// The shape of these. InvalidArgument (INVALID_HYPERPARAMETER; field): a rank
// outside 1..256 or an alpha outside 1e-6..1e6.
absl::StatusOr<LoraShape> MakeLoraShape(int64_t rank, double alpha,
                                        bool use_rslora);

// The shapes by linear. InvalidArgument: a target or pattern that cannot be
// read (INVALID_NAME_PATTERN) or that fits no linear, no target at all
// (INVALID_HYPERPARAMETER; field); the errors of MakeLoraShape.
absl::StatusOr<std::vector<LoraShape>> PlanLora(
    absl::Span<const model::LinearSpec> linears, const LoraOptions& options);

// The adapter_config.json of PEFT that says the same: r, lora_alpha,
// target_modules, rank_pattern and alpha_pattern by whole module names,
// use_rslora.
std::string PeftConfigJson(absl::Span<const model::LinearSpec> linears,
                           absl::Span<const LoraShape> shapes,
                           const LoraOptions& options,
                           const std::string& base_model_name);

// All that shapes the parameters and their training, in words.
std::string DescribeLora(const LoraOptions& options);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_LORA_PLAN_H_
