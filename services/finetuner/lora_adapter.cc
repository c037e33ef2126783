#include "services/finetuner/lora_adapter.h"

#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <cstddef>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/finetuner/grid_checkpoint.h"
#include "services/finetuner/tensor_file.h"

namespace onegrid::finetuner {
namespace {

// Shapes of one group before its tensors exist.
struct GroupPlan {
  int64_t in = 0;
  int64_t ranks = 0;  // Sum over the members.
  std::vector<LoraLinearParameters> members;
};

GroupPlan PlanGroup(absl::Span<const model::LinearSpec> linears,
                    absl::Span<const LoraShape> shapes, GroupSpan span) {
  GroupPlan plan;
  int64_t out_offset = 0;
  for (int64_t linear = span.begin; linear < span.end; ++linear) {
    const model::LinearSpec& spec = linears[static_cast<size_t>(linear)];
    plan.in = spec.in;
    const LoraShape& shape = shapes[static_cast<size_t>(linear)];
    if (shape.rank > 0) {
      LoraLinearParameters member;
      member.linear = linear;
      member.out_offset = out_offset;
      member.scale = shape.scale;
      plan.members.push_back(std::move(member));
      plan.ranks += shape.rank;
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

LoraAdapter::LoraAdapter(absl::Span<const model::LinearSpec> linears,
                         const LoraOptions& options,
                         std::vector<LoraShape> shapes)
    : options_(options),
      linears_(linears.begin(), linears.end()),
      shapes_(std::move(shapes)) {
  const LinearLayout layout(linears);
  std::vector<GroupPlan> plans;
  for (int64_t layer = 0; layer < layout.layers(); ++layer) {
    for (int g = 0; g < kGroupsPerLayer; ++g) {
      plans.push_back(PlanGroup(linears, shapes_,
                                layout.Of(layer, static_cast<LinearGroup>(g))));
    }
  }
  int64_t total = 0;
  for (size_t i = 0; i < linears.size(); ++i) {
    total += shapes_[i].rank * (linears[i].in + linears[i].out);
  }
  parameters_ = at::zeros({total}, at::kFloat);
  gradients_ = at::zeros({total}, at::kFloat);
  Carver carver(parameters_, gradients_);
  for (GroupPlan& plan : plans) {
    LoraGroup group;
    if (!plan.members.empty()) {
      std::tie(group.a, group.grad_a) = carver.Take(plan.ranks, plan.in);
    }
    int64_t row = 0;
    for (LoraLinearParameters& member : plan.members) {
      const auto linear = static_cast<size_t>(member.linear);
      const int64_t rank = shapes_[linear].rank;
      member.a = group.a.narrow(0, row, rank);
      std::tie(member.b, member.grad_b) =
          carver.Take(linears[linear].out, rank);
      row += rank;
    }
    group.members = std::move(plan.members);
    groups_.push_back(std::move(group));
  }
}

absl::StatusOr<LoraAdapter> LoraAdapter::Create(
    absl::Span<const model::LinearSpec> linears, const LoraOptions& options,
    uint64_t seed) {
  ASSIGN_OR_RETURN(std::vector<LoraShape> shapes, PlanLora(linears, options));
  LoraAdapter adapter(linears, options, std::move(shapes));
  at::Generator random = at::detail::createCPUGenerator(seed);
  for (LoraGroup& group : adapter.groups_) {
    if (group.members.empty()) continue;
    const double bound = 1.0 / std::sqrt(static_cast<double>(group.a.size(1)));
    group.a.uniform_(-bound, bound, random);
  }
  return adapter;
}

void LoraAdapter::Refresh(at::ScalarType compute_type) {
  const LinearLayout layout(linears_);
  for (size_t g = 0; g < groups_.size(); ++g) {
    LoraGroup& group = groups_[g];
    if (group.members.empty()) continue;
    const GroupSpan span =
        layout.Of(static_cast<int64_t>(g / kGroupsPerLayer),
                  static_cast<LinearGroup>(g % kGroupsPerLayer));
    int64_t out = 0;
    for (int64_t i = span.begin; i < span.end; ++i) {
      out += linears_[static_cast<size_t>(i)].out;
    }
    // New tensors: an autograd graph may still hold the old ones.
    group.a_compute = group.a.to(compute_type, /*non_blocking=*/false,
                                 /*copy=*/true);
    at::Tensor b = at::zeros({out, group.a.size(0)}, at::kFloat);
    int64_t rank_offset = 0;
    for (const LoraLinearParameters& member : group.members) {
      const int64_t rank = member.b.size(1);
      b.narrow(0, member.out_offset, member.b.size(0))
          .narrow(1, rank_offset, rank)
          .copy_(member.b * member.scale);
      rank_offset += rank;
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
      if (member.linear == linear) {
        return at::mm(member.b, member.a) * member.scale;
      }
    }
  }
  return at::Tensor();
}

std::vector<ParameterSpan> LoraAdapter::spans() const {
  std::vector<ParameterSpan> spans;
  int64_t next = 0;
  const auto add = [&](int64_t count, double multiplier) {
    if (!spans.empty() && spans.back().learning_rate_multiplier == multiplier) {
      spans.back().end += count;
    } else {
      spans.push_back({next, next + count, multiplier});
    }
    next += count;
  };
  for (const LoraGroup& group : groups_) {
    if (group.members.empty()) continue;
    add(group.a.numel(), 1);
    for (const LoraLinearParameters& member : group.members) {
      add(member.b.numel(), options_.lora_plus_ratio);
    }
  }
  return spans;
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
  return PeftConfigJson(linears_, shapes_, options_, base_model_name);
}

}  // namespace onegrid::finetuner
