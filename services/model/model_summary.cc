#include "services/model/model_summary.h"

#include <sys/stat.h>

#include <algorithm>

#include "kernels/quant/grid.h"
#include "services/common/files.h"
#include "services/model/chat_format.h"
#include "services/model/model_summary_builder.h"
#include "services/model/serving_memory.h"
#include "services/model/tensor_names.h"
#include "services/model/tokenizer_digest.h"

namespace onegrid::model {
namespace {

// The published sizes, told apart by depth and width.
std::string SizeName(const GemmaConfig& config) {
  constexpr GemmaFamily k3 = GemmaFamily::kGemma3, k4 = GemmaFamily::kGemma4;
  constexpr struct {
    GemmaFamily family;
    const char* name;
    int64_t layers;
    int64_t hidden;
  } kSizes[] = {{k3, "270M", 18, 640},     {k3, "1B", 26, 1152},
                {k3, "4B", 34, 2560},      {k3, "12B", 48, 3840},
                {k3, "27B", 62, 5376},     {k4, "E2B", 35, 1536},
                {k4, "E4B", 42, 2560},     {k4, "12B", 48, 3840},
                {k4, "26B-A4B", 30, 2816}, {k4, "31B", 60, 5376}};
  for (const auto& size : kSizes) {
    if (size.family == config.family && size.layers == config.layer_count() &&
        size.hidden == config.hidden) {
      return size.name;
    }
  }
  return "";
}

}  // namespace

void ModelSummaryBuilder::AddTensor(const std::string& type, int64_t parameters,
                                    int64_t bytes) {
  TypeSummary& sum = types_[type];
  sum.type = type;
  sum.tensors += 1;
  sum.parameters += parameters;
  sum.bytes += bytes;
  summary_.tensors += 1;
  summary_.parameters += parameters;
}

void ModelSummaryBuilder::AddScales(const quant::Grid& grid,
                                    absl::Span<const float> scales) {
  GridSummary& sum = grids_[grid.name];
  sum.grid = grid.name;
  sum.groups += static_cast<int64_t>(scales.size());
  sum.dual_exact +=
      std::count_if(scales.begin(), scales.end(), quant::IsDualExact);
}

void ModelSummaryBuilder::SetTokenizer(const Vocabulary& vocabulary) {
  summary_.tokens = static_cast<int64_t>(vocabulary.tokens.size());
  summary_.tokenizer_kind = vocabulary.kind;
  summary_.tokenizer_sha256 = TokenizerDigest(vocabulary);
}

void ModelSummaryBuilder::SetChatTemplate(const std::string& jinja) {
  if (jinja.empty()) return;
  summary_.chat_template_sha256 = common::Sha256Of(jinja);
  const auto format = FormatOfTemplate(jinja);
  if (format.has_value()) summary_.chat_format = RulesOf(*format).name;
}

ModelSummary ModelSummaryBuilder::Finish(int64_t context_tokens,
                                         const std::string& packed_form) {
  const GemmaConfig& config = summary_.config;
  summary_.size = SizeName(config);
  for (const auto& [name, sum] : types_) summary_.types.push_back(sum);
  for (const auto& [name, sum] : grids_) summary_.grids.push_back(sum);
  summary_.context = std::min(context_tokens, config.context_length);
  const absl::Status served = CheckServedShape(config);
  if (!served.ok()) {
    summary_.not_served = std::string(served.message());
    return summary_;
  }
  const std::vector<LinearSpec> linears = GemmaLinears(config);
  const std::vector<TableSpec> tables = GemmaTables(config);
  const bool all_served =
      served_types_.size() == linears.size() + tables.size();
  if (!packed_form.empty()) {
    summary_.served_form = packed_form;
  } else {
    summary_.served_form = all_served ? "as they are" : "imported";
    if (!all_served) served_types_.clear();
  }
  const auto add = [&](const std::string& name, int64_t rows, int64_t cols,
                       quant::GgmlType imported) {
    const auto found = served_types_.find(name);
    summary_.weight_bytes += PackedBytes(
        found == served_types_.end() ? imported : found->second, rows, cols);
  };
  for (const LinearSpec& spec : linears) {
    add(spec.gguf_name, spec.out, spec.in,
        spec.layer < 0 ? quant::GgmlType::kQ8_0 : quant::GgmlType::kQ4_0);
  }
  add(kGgufEmbedding, config.vocab_size, config.hidden, quant::GgmlType::kQ8_0);
  summary_.kv_bytes = Int8KvBytes(config, summary_.context);
  return summary_;
}

absl::StatusOr<ModelSummary> SummarizeModel(const std::string& path,
                                            int64_t context_tokens) {
  struct stat info;
  if (stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) {
    return SummaryOfFolder(path, context_tokens);
  }
  return SummaryOfGguf(path, context_tokens);
}

}  // namespace onegrid::model
