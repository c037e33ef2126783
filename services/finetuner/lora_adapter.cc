#include "services/finetuner/lora_adapter.h"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/error_info.h"
#include "services/finetuner/grid_checkpoint.h"
#include "services/finetuner/tensor_file.h"

namespace onegrid::finetuner {
namespace {

bool IsTarget(const LoraOptions& options, const std::string& kind) {
  return options.targets.empty() ||
         std::find(options.targets.begin(), options.targets.end(), kind) !=
             options.targets.end();
}

// Shapes of one group before its tensors exist.
struct GroupPlan {
  int64_t in = 0;
  std::vector<LoraLinearParameters> members;
  std::vector<int64_t> outs;
};

GroupPlan PlanGroup(absl::Span<const model::LinearSpec> linears,
                    const LoraOptions& options, int64_t layer,
                    LinearGroup group) {
  GroupPlan plan;
  const GroupSpan span = LinearsOf(group);
  int64_t out_offset = 0;
  for (int i = span.begin; i < span.end; ++i) {
    const int64_t linear = layer * kLinearsPerLayer + i;
    const model::LinearSpec& spec = linears[static_cast<size_t>(linear)];
    plan.in = spec.in;
    if (IsTarget(options, spec.kind)) {
      LoraLinearParameters member;
      member.linear = linear;
      member.out_offset = out_offset;
      plan.members.push_back(std::move(member));
      plan.outs.push_back(spec.out);
    }
    out_offset += spec.out;
  }
  return plan;
}

// Cuts consecutive [rows, cols] views off two flat vectors.
class Carver {
 public:
  Carver(at::Tensor parameters, at::Tensor gradients)
      : parameters_(std::move(parameters)), gradients_(std::move(gradients)) {}

  std::pair<at::Tensor, at::Tensor> Take(int64_t rows, int64_t cols) {
    const int64_t start = next_;
    next_ += rows * cols;
    return {parameters_.narrow(0, start, rows * cols).view({rows, cols}),
            gradients_.narrow(0, start, rows * cols).view({rows, cols})};
  }

 private:
  at::Tensor parameters_;
  at::Tensor gradients_;
  int64_t next_ = 0;
};

}  // namespace

absl::StatusOr<LoraAdapter> LoraAdapter::Create(
    absl::Span<const model::LinearSpec> linears, const LoraOptions& options,
    uint64_t seed) {
  const int64_t rank = options.rank;
  const int64_t layers =
      static_cast<int64_t>(linears.size()) / kLinearsPerLayer;
  std::vector<GroupPlan> plans;
  int64_t total = 0;
  for (int64_t g = 0; g < layers * kGroupsPerLayer; ++g) {
    plans.push_back(PlanGroup(linears, options, g / kGroupsPerLayer,
                              static_cast<LinearGroup>(g % kGroupsPerLayer)));
    for (const int64_t out : plans.back().outs) {
      total += rank * (plans.back().in + out);
    }
  }
  if (total == 0) {
    return common::MakeError(
        absl::StatusCode::kInvalidArgument, "INVALID_HYPERPARAMETER",
        absl::StrCat("target_modules names no linear of the model: ",
                     absl::StrJoin(options.targets, ", ")),
        {{"field", "lora.target_modules"}});
  }
  LoraAdapter adapter;
  adapter.options_ = options;
  adapter.linears_.assign(linears.begin(), linears.end());
  adapter.parameters_ = at::zeros({total}, at::kFloat);
  adapter.gradients_ = at::zeros({total}, at::kFloat);
  Carver carver(adapter.parameters_, adapter.gradients_);
  at::Generator random = at::detail::createCPUGenerator(seed);
  for (GroupPlan& plan : plans) {
    LoraGroup group;
    if (!plan.members.empty()) {
      const int64_t ranks = rank * static_cast<int64_t>(plan.members.size());
      std::tie(group.a, group.grad_a) = carver.Take(ranks, plan.in);
      const double bound = 1.0 / std::sqrt(static_cast<double>(plan.in));
      group.a.uniform_(-bound, bound, random);
    }
    for (size_t i = 0; i < plan.members.size(); ++i) {
      LoraLinearParameters& member = plan.members[i];
      member.a = group.a.narrow(0, rank * static_cast<int64_t>(i), rank);
      std::tie(member.b, member.grad_b) = carver.Take(plan.outs[i], rank);
    }
    group.members = std::move(plan.members);
    adapter.groups_.push_back(std::move(group));
  }
  return adapter;
}

void LoraAdapter::Refresh(at::ScalarType compute_type) {
  for (size_t g = 0; g < groups_.size(); ++g) {
    LoraGroup& group = groups_[g];
    if (group.members.empty()) continue;
    const GroupSpan span =
        LinearsOf(static_cast<LinearGroup>(g % kGroupsPerLayer));
    int64_t out = 0;
    for (int i = span.begin; i < span.end; ++i) {
      out += linears_[g / kGroupsPerLayer * kLinearsPerLayer +
                      static_cast<size_t>(i)]
                 .out;
    }
    // New tensors: an autograd graph may still hold the old ones.
    group.a_compute = group.a.to(compute_type, /*non_blocking=*/false,
                                 /*copy=*/true);
    at::Tensor b = at::zeros({out, group.a.size(0)}, at::kFloat);
    int64_t rank_offset = 0;
    for (const LoraLinearParameters& member : group.members) {
      b.narrow(0, member.out_offset, member.b.size(0))
          .narrow(1, rank_offset, options_.rank)
          .copy_(member.b * scale());
      rank_offset += options_.rank;
    }
    group.b_compute = b.to(compute_type);
  }
}

const LoraGroup* LoraAdapter::group(int64_t layer, int group) const {
  const LoraGroup& found =
      groups_[static_cast<size_t>(layer * kGroupsPerLayer + group)];
  return found.members.empty() ? nullptr : &found;
}

at::Tensor LoraAdapter::Delta(int64_t linear) const {
  for (const LoraGroup& group : groups_) {
    for (const LoraLinearParameters& member : group.members) {
      if (member.linear == linear) return at::mm(member.b, member.a) * scale();
    }
  }
  return at::Tensor();
}

absl::Status LoraAdapter::SaveTensors(const std::string& path) const {
  TensorFileWriter writer;
  for (const LoraGroup& group : groups_) {
    for (const LoraLinearParameters& member : group.members) {
      const std::string stem =
          absl::StrCat("base_model.model.",
                       linears_[static_cast<size_t>(member.linear)].hf_name);
      RETURN_IF_ERROR(writer.Add(stem + ".lora_A.weight", member.a));
      RETURN_IF_ERROR(writer.Add(stem + ".lora_B.weight", member.b));
    }
  }
  writer.SetMetadata({{"format", "pt"}});
  return writer.WriteTo(path);
}

std::string LoraAdapter::ConfigJson(const std::string& base_model_name) const {
  std::set<std::string> targets;
  for (const model::LinearSpec& linear : linears_) {
    if (IsTarget(options_, linear.kind)) targets.insert(linear.kind);
  }
  nlohmann::json config = {
      {"peft_type", "LORA"},
      {"task_type", "CAUSAL_LM"},
      {"base_model_name_or_path", base_model_name},
      {"r", options_.rank},
      {"lora_alpha", options_.alpha},
      {"lora_dropout", options_.dropout},
      {"target_modules", targets},
      {"bias", "none"},
      {"use_rslora", false},
      {"use_dora", false},
      {"fan_in_fan_out", false},
      {"init_lora_weights", true},
      {"inference_mode", true},
      {"modules_to_save", nullptr},
  };
  return config.dump(2) + "\n";
}

}  // namespace onegrid::finetuner
