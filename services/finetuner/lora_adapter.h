// LoRA parameters of every targeted linear, in one flat float32 vector, with
// copies in the compute type for the forward and backward products.
//
// A targeted linear W [out, in] computes W x + scale * B (A x) with A [rank,
// in] and B [out, rank], rank and scale by lora_plan.h. Linears of one group
// share their input, so their A's are stacked to one [ranks, in] matrix and
// their B's lie in one block-diagonal [group out, ranks] matrix.
#ifndef SERVICES_FINETUNER_LORA_ADAPTER_H_
#define SERVICES_FINETUNER_LORA_ADAPTER_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/finetuner/lora_plan.h"
#include "services/finetuner/tunable.h"
#include "services/model/tensor_names.h"

namespace onegrid::finetuner {

// One targeted linear. Tensors are views of the flat vectors.
struct LoraLinearParameters {
  int64_t linear = 0;      // Index in GemmaLinears.
  int64_t out_offset = 0;  // First output within its group.
  double scale = 0;
  at::Tensor a;  // [rank, in]
  at::Tensor b;  // [out, rank]
  at::Tensor grad_b;
};

// The targeted linears of one group.
struct LoraGroup {
  std::vector<LoraLinearParameters> members;
  at::Tensor a;       // [ranks, in] view, all members
  at::Tensor grad_a;  // Same shape.
  // In the compute type, made by Refresh: a, and B times scale in block
  // diagonal form [group out, ranks].
  at::Tensor a_compute;
  at::Tensor b_compute;
};

// All parameters. Not thread-safe.
class LoraAdapter {
 public:
  // A ~ uniform with bound 1/sqrt(in) (Kaiming with a = sqrt 5), B = 0.
  // Errors: those of PlanLora.
  static absl::StatusOr<LoraAdapter> Create(
      absl::Span<const model::LinearSpec> linears, const LoraOptions& options,
      uint64_t seed);
  // All zeros, of these shapes by linear.
  LoraAdapter(absl::Span<const model::LinearSpec> linears,
              const LoraOptions& options, std::vector<LoraShape> shapes);

  // Recomputes the copies in the compute type. Call after every change of
  // parameters().
  void Refresh(at::ScalarType compute_type);

  const LoraOptions& options() const { return options_; }
  // nullptr when no linear of the group is targeted.
  const LoraGroup* group(int64_t layer, int group) const;
  const std::vector<LoraGroup>& groups() const { return groups_; }

  // [n] float32.
  const at::Tensor& parameters() const { return parameters_; }
  const at::Tensor& gradients() const { return gradients_; }
  // Those of A at the stage's learning rate, those of B at lora_plus_ratio
  // times that; neighbours of one rate are one span.
  std::vector<ParameterSpan> spans() const;

  // scale * B A of linear `linear`, [out, in] float32; undefined when it is
  // not targeted.
  at::Tensor Delta(int64_t linear) const;

  // PEFT's file: base_model.model.<module>.lora_{A,B}.weight, float32.
  absl::Status SaveTensors(const std::string& path) const;
  // adapter_config.json that goes with it.
  std::string ConfigJson(const std::string& base_model_name) const;

 private:
  LoraOptions options_;
  std::vector<model::LinearSpec> linears_;
  std::vector<LoraShape> shapes_;  // By linear.
  std::vector<LoraGroup> groups_;  // [layer * kGroupsPerLayer + group]
  at::Tensor parameters_;
  at::Tensor gradients_;
};

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_LORA_ADAPTER_H_
