#include "services/model/inspect.h"

#include <algorithm>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/model/model_summary.h"
#include "services/model/tuning_memory.h"

namespace onegrid::model {
namespace {

// Names of foreign tensors that are printed; a file may have any number.
constexpr size_t kOtherNamesMax = 5;

const char* KindName(TokenizerKind kind) {
  return kind == TokenizerKind::kScores ? "SentencePiece BPE"
                                        : "BPE by a list of merges";
}

std::string Megabytes(int64_t bytes) {
  return absl::StrFormat("%.1f MB", static_cast<double>(bytes) / 1e6);
}

// Bytes, with products in each type.
struct TuningMemory {
  int64_t f32 = 0;
  int64_t bf16 = 0;
};

TuningMemory MemoryToTune(const GemmaConfig& config,
                          const InspectOptions& options) {
  TuningShape shape{.sequence_tokens = options.sequence_tokens,
                    .rank = options.rank};
  const int64_t f32 = TuningBytes(config, shape);
  shape.bf16 = true;
  return {f32, TuningBytes(config, shape)};
}

absl::Status CheckOption(const std::string& name, int64_t value, int64_t least,
                         int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "INVALID_OPTION",
      absl::StrCat(name, ": expected ", least, " to ", most, ", found ", value),
      {{"option", name}, {"found", absl::StrCat(value)}});
}

int64_t GlobalLayers(const GemmaConfig& config) {
  int64_t count = 0;
  for (const GemmaLayer& layer : config.layers) {
    count += layer.global ? 1 : 0;
  }
  return count;
}

// What the layers have, in their order, each number once: "256 and 512".
template <typename Get>
std::string EachOnce(const GemmaConfig& config, Get get) {
  std::vector<int64_t> numbers;
  for (const GemmaLayer& layer : config.layers) {
    if (std::count(numbers.begin(), numbers.end(), get(layer)) == 0) {
      numbers.push_back(get(layer));
    }
  }
  return absl::StrJoin(numbers, " and ");
}

int64_t SharedLayers(const GemmaConfig& config) {
  int64_t count = 0;
  for (int64_t i = 0; i < config.layer_count(); ++i) {
    count += config.HasKv(i) ? 0 : 1;
  }
  return count;
}

std::string SharedText(const GemmaConfig& config) {
  const int64_t shared = SharedLayers(config);
  if (shared == 0) return "";
  return absl::StrCat("; ", shared, " attend to earlier layers' keys");
}

std::string InputText(const GemmaConfig& config) {
  if (config.per_layer_width == 0) return "";
  return absl::StrCat(", each layer's own input ", config.per_layer_width);
}

// A line of the report: what, then its value in a column.
void Line(absl::string_view what, absl::string_view value, std::string* text) {
  absl::StrAppendFormat(text, "%-14s %s\n", what, value);
}

void ShapeLines(const ModelSummary& s, std::string* text) {
  const GemmaConfig& c = s.config;
  const int64_t global = GlobalLayers(c);
  Line("format", s.format, text);
  Line("model",
       absl::StrCat(c.family == GemmaFamily::kGemma3 ? "Gemma 3" : "Gemma 4",
                    " text, ",
                    s.size.empty() ? "not of a published size" : s.size),
       text);
  Line("layers",
       absl::StrCat(c.layer_count(), ": ", global, " global, ",
                    c.layer_count() - global, " with a window of ",
                    c.sliding_window, " tokens", SharedText(c)),
       text);
  Line("width",
       absl::StrCat("hidden ", c.hidden, ", MLP ",
                    EachOnce(c, [](const GemmaLayer& l) { return l.ff; }),
                    InputText(c)),
       text);
  Line(
      "heads",
      absl::StrCat(c.heads, " of ",
                   EachOnce(c, [](const GemmaLayer& l) { return l.head_dim; }),
                   ", key/value ",
                   EachOnce(c, [](const GemmaLayer& l) { return l.kv_heads; })),
      text);
  if (c.experts > 0) {
    Line("experts",
         absl::StrCat(c.experts, " of ", c.expert_ff, ", ", c.experts_used,
                      " used by a token"),
         text);
  }
  Line("context", absl::StrCat(c.context_length, " tokens"), text);
}

void TensorLines(const ModelSummary& s, std::string* text) {
  Line("tensors", absl::StrCat(s.tensors, ", ", s.parameters, " parameters"),
       text);
  for (const TypeSummary& type : s.types) {
    Line("",
         absl::StrFormat("%-12s %5d tensors %13d parameters %10s", type.type,
                         type.tensors, type.parameters, Megabytes(type.bytes)),
         text);
  }
  if (s.grids.empty()) Line("scales", "none on a grid", text);
  for (const GridSummary& grid : s.grids) {
    Line(&grid == &s.grids[0] ? "scales" : "",
         absl::StrFormat("%-12s %d of %d groups dual-exact (%.2f %%)",
                         grid.grid, grid.dual_exact, grid.groups,
                         100.0 * static_cast<double>(grid.dual_exact) /
                             static_cast<double>(grid.groups)),
         text);
  }
  if (s.other_tensors.empty()) return;
  std::string names;
  const size_t shown = std::min(s.other_tensors.size(), kOtherNamesMax);
  for (size_t i = 0; i < shown; ++i) {
    absl::StrAppend(&names, " ", absl::CHexEscape(s.other_tensors[i]));
  }
  Line("not imported",
       absl::StrCat(s.other_tensors.size(), " other tensors:", names,
                    shown < s.other_tensors.size() ? " ..." : ""),
       text);
}

std::string Text(const ModelSummary& s, const InspectOptions& options) {
  std::string text;
  ShapeLines(s, &text);
  TensorLines(s, &text);
  Line("tokenizer",
       s.tokens == 0 ? "none"
                     : absl::StrCat(KindName(s.tokenizer_kind), ", ", s.tokens,
                                    " tokens, sha256 ", s.tokenizer_sha256),
       &text);
  Line("chat template",
       s.chat_template_sha256.empty()
           ? "none"
           : absl::StrCat(s.chat_format.empty() ? "not known" : s.chat_format,
                          ", sha256 ", s.chat_template_sha256),
       &text);
  if (!s.not_served.empty()) {
    Line("to serve", absl::StrCat("not possible: ", s.not_served), &text);
    return text;
  }
  Line("to serve",
       absl::StrCat(Megabytes(s.weight_bytes + s.kv_bytes), ": weights ",
                    s.served_form, " ", Megabytes(s.weight_bytes),
                    ", int8 cache of ", s.context, " tokens ",
                    Megabytes(s.kv_bytes)),
       &text);
  const TuningMemory tuning = MemoryToTune(s.config, options);
  Line("to tune",
       absl::StrCat("about ", Megabytes(tuning.f32), ", or ",
                    Megabytes(tuning.bf16),
                    " with AVX-512 BF16: qlora_qat, rank ", options.rank,
                    ", sequences of ", options.sequence_tokens, " tokens"),
       &text);
  return text;
}

std::string Json(const ModelSummary& s, const InspectOptions& options) {
  using nlohmann::ordered_json;
  const GemmaConfig& c = s.config;
  ordered_json json = {{"format", s.format},
                       {"family", ArchitectureName(c.family)},
                       {"size", s.size},
                       {"layers", c.layer_count()},
                       {"global_layers", GlobalLayers(c)},
                       {"sliding_window", c.sliding_window},
                       {"hidden", c.hidden},
                       {"ff", c.max_ff()},
                       {"heads", c.heads},
                       {"kv_heads", c.layers[0].kv_heads},
                       {"head_dim", c.max_head_dim()},
                       {"kv_shared_layers", SharedLayers(c)},
                       {"per_layer_width", c.per_layer_width},
                       {"experts", c.experts},
                       {"context_length", c.context_length},
                       {"vocab_size", c.vocab_size},
                       {"tensors", s.tensors},
                       {"parameters", s.parameters},
                       {"types", ordered_json::array()},
                       {"grids", ordered_json::array()},
                       {"other_tensors", s.other_tensors},
                       {"tokenizer", nullptr},
                       {"chat_template", nullptr},
                       {"serve", nullptr},
                       {"tune", nullptr}};
  for (const TypeSummary& type : s.types) {
    json["types"].push_back({{"type", type.type},
                             {"tensors", type.tensors},
                             {"parameters", type.parameters},
                             {"bytes", type.bytes}});
  }
  for (const GridSummary& grid : s.grids) {
    json["grids"].push_back({{"grid", grid.grid},
                             {"groups", grid.groups},
                             {"dual_exact", grid.dual_exact}});
  }
  if (s.tokens > 0) {
    json["tokenizer"] = {{"kind", KindName(s.tokenizer_kind)},
                         {"tokens", s.tokens},
                         {"sha256", s.tokenizer_sha256}};
  }
  if (!s.chat_template_sha256.empty()) {
    json["chat_template"] = {{"sha256", s.chat_template_sha256},
                             {"format", s.chat_format},
                             {"known", !s.chat_format.empty()}};
  }
  if (s.not_served.empty()) {
    json["serve"] = {{"form", s.served_form},
                     {"context", s.context},
                     {"weight_bytes", s.weight_bytes},
                     {"kv_bytes", s.kv_bytes},
                     {"bytes", s.weight_bytes + s.kv_bytes}};
    const TuningMemory tuning = MemoryToTune(s.config, options);
    json["tune"] = {{"mode", "qlora_qat"},
                    {"rank", options.rank},
                    {"sequence_tokens", options.sequence_tokens},
                    {"bytes_f32", tuning.f32},
                    {"bytes_bf16", tuning.bf16}};
  } else {
    json["serve"] = {{"problem", s.not_served}};
  }
  // Names of tensors need not be UTF-8.
  return json.dump(2, ' ', /*ensure_ascii=*/false,
                   ordered_json::error_handler_t::replace) +
         "\n";
}

}  // namespace

absl::StatusOr<std::string> InspectModel(const std::string& path,
                                         const InspectOptions& options) {
  RETURN_IF_ERROR(CheckOption("context", options.context_tokens, 1,
                              std::numeric_limits<int64_t>::max()));
  RETURN_IF_ERROR(
      CheckOption("sequence-tokens", options.sequence_tokens, 8, 8192));
  RETURN_IF_ERROR(CheckOption("rank", options.rank, 1, 256));
  ASSIGN_OR_RETURN(const ModelSummary summary,
                   SummarizeModel(path, options.context_tokens));
  return options.json ? Json(summary, options) : Text(summary, options);
}

}  // namespace onegrid::model
