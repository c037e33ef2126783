#include "services/finetuner/initial_adapter.h"

#include <cstddef>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/finetuner/adapter_tensors.h"

namespace onegrid::finetuner {
namespace {

absl::Status Contradiction(const std::string& field, const std::string& asked,
                           const std::string& found) {
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "INVALID_HYPERPARAMETER",
      absl::StrCat(field, " is ", asked, ", the initial adapter has ", found),
      {{"field", field}});
}

// The value that most pairs have, of several the largest.
template <typename T>
T MostFrequent(const std::vector<model::AdapterPair>& pairs,
               T model::AdapterPair::* field) {
  std::map<T, int64_t> votes;
  T best = pairs[0].*field;
  for (const model::AdapterPair& pair : pairs) ++votes[pair.*field];
  for (const auto& [value, count] : votes) {
    if (count >= votes[best]) best = value;
  }
  return best;
}

absl::Status CheckTargets(absl::Span<const model::LinearSpec> linears,
                          absl::Span<const LoraShape> shapes,
                          const LoraOptions& asked) {
  if (asked.targets.empty()) return absl::OkStatus();
  LoraOptions targets;
  targets.targets = asked.targets;
  ASSIGN_OR_RETURN(const std::vector<LoraShape> planned,
                   PlanLora(linears, targets));
  for (size_t i = 0; i < linears.size(); ++i) {
    const bool wanted = planned[i].rank > 0, there = shapes[i].rank > 0;
    if (wanted == there) continue;
    return Contradiction(
        "lora.target_modules",
        absl::StrCat(wanted ? "with " : "without ", linears[i].hf_name),
        there ? "it" : "nothing there");
  }
  return absl::OkStatus();
}

// The shapes by linear, and what `asked` leaves open.
absl::StatusOr<std::vector<LoraShape>> ShapesOf(
    const common::AdapterFiles& files, const model::Adapter& adapter,
    absl::Span<const model::LinearSpec> linears, const LoraOptions& asked) {
  std::map<std::string, const model::AdapterPair*> pairs;
  for (const model::AdapterPair& pair : adapter.pairs()) {
    pairs[pair.spec.hf_name] = &pair;
    if (pair.spec.layer < 0) {
      return common::MakeError(
          absl::StatusCode::kInvalidArgument, "UNSUPPORTED_ADAPTER",
          absl::StrCat(files.tensors, ": ", pair.spec.hf_name,
                       " is outside of the layers, where no adapter is "
                       "trained"),
          {{"path", files.tensors}});
    }
    if (asked.rank != 0 && asked.rank != pair.rank) {
      return Contradiction("lora.rank", absl::StrCat(asked.rank),
                           absl::StrCat(pair.rank, " on ", pair.spec.hf_name));
    }
    if (asked.alpha != 0 && asked.alpha != pair.alpha) {
      return Contradiction("lora.alpha", absl::StrCat(asked.alpha),
                           absl::StrCat(pair.alpha, " on ", pair.spec.hf_name));
    }
  }
  if (asked.use_rslora && !adapter.use_rslora()) {
    return Contradiction("lora.use_rslora", "true", "false");
  }
  std::vector<LoraShape> shapes(linears.size());
  for (size_t i = 0; i < linears.size(); ++i) {
    const auto found = pairs.find(linears[i].hf_name);
    if (found == pairs.end()) continue;
    ASSIGN_OR_RETURN(shapes[i],
                     MakeLoraShape(found->second->rank, found->second->alpha,
                                   adapter.use_rslora()));
  }
  RETURN_IF_ERROR(CheckTargets(linears, shapes, asked));
  return shapes;
}

// Of all that is taken from the files.
std::string DigestOf(const model::Adapter& adapter) {
  std::string parts;
  for (const model::AdapterPair& pair : adapter.pairs()) {
    absl::StrAppend(&parts, pair.spec.hf_name, " ", pair.rank, " ", pair.alpha);
    for (const at::Tensor& matrix : {AdapterA(pair), AdapterB(pair)}) {
      const absl::string_view bytes(
          static_cast<const char*>(matrix.const_data_ptr()), matrix.nbytes());
      absl::StrAppend(&parts, " ", common::Sha256Of(bytes));
    }
  }
  return common::Sha256Of(absl::StrCat(parts, adapter.use_rslora()));
}

}  // namespace

absl::StatusOr<LoraAdapter> LoadInitialAdapter(
    const common::AdapterFiles& files, const std::string& architecture,
    const std::vector<model::LinearSpec>& linears, LoraOptions options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<model::Adapter> read,
                   model::Adapter::Open(files, architecture, linears));
  ASSIGN_OR_RETURN(std::vector<LoraShape> shapes,
                   ShapesOf(files, *read, linears, options));
  options.rank = MostFrequent(read->pairs(), &model::AdapterPair::rank);
  options.alpha = MostFrequent(read->pairs(), &model::AdapterPair::alpha);
  options.use_rslora = read->use_rslora();
  options.initial = DigestOf(*read);
  LoraAdapter adapter(linears, options, std::move(shapes));
  for (const LoraGroup& group : adapter.groups()) {
    for (const LoraLinearParameters& member : group.members) {
      const std::string& name =
          linears[static_cast<size_t>(member.linear)].hf_name;
      for (const model::AdapterPair& pair : read->pairs()) {
        if (pair.spec.hf_name != name) continue;
        member.a.copy_(AdapterA(pair));
        member.b.copy_(AdapterB(pair));
      }
    }
  }
  return adapter;
}

}  // namespace onegrid::finetuner
