#include "services/model/quant_plan.h"

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "kernels/quant/ggml_types.h"
#include "kernels/quant/grid_blocks.h"
#include "services/common/error_info.h"
#include "services/common/yaml_documents.h"
#include "services/model/tensor_names.h"
#include "yaml-cpp/yaml.h"

namespace onegrid::model {
namespace {

using quant::Grid;

constexpr char kHeader[] =
    R"(# Quantization plan: the grid of each matrix of the model.
#   int4_g32  codes -8..7,      groups of 32, 4.5 bits a weight,  GGUF Q4_0
#   int2_g64  codes -1, 0, 1,   groups of 64, 2.25 bits a weight, GGUF Q2_0
#   int8_g32  codes -127..127,  groups of 32, 8.5 bits a weight,  GGUF Q8_0
# The first rule whose pattern fits a tensor's GGUF name counts; * stands for
# any characters, {9-17} for any number from 9 to 17. The token embedding, the
# output head too, is meant only by its full name, token_embd.weight.
)";

absl::Status PlanError(absl::string_view what,
                       std::map<std::string, std::string> metadata = {}) {
  return common::MakeError(absl::StatusCode::kInvalidArgument,
                           "INVALID_QUANT_PLAN",
                           absl::StrCat("quantization plan: ", what), metadata);
}

// An error at a place in the text. rule counts from 1; 0 is outside the rules.
absl::Status ErrorAt(const YAML::Mark& mark, int rule, absl::string_view what) {
  const int line = mark.line + 1;
  std::map<std::string, std::string> metadata = {{"line", absl::StrCat(line)}};
  std::string place = absl::StrCat("line ", line);
  if (rule > 0) {
    metadata["rule"] = absl::StrCat(rule);
    absl::StrAppend(&place, ", rule ", rule);
  }
  return PlanError(absl::StrCat(place, ": ", what), metadata);
}

// The entries of a map whose keys are all among `keys` and each there at most
// once. All values of the result are present in the text.
absl::StatusOr<std::map<std::string, YAML::Node>> ReadMap(
    const YAML::Node& node, int rule, const std::set<std::string>& keys) {
  std::string expected;
  for (const std::string& key : keys) absl::StrAppend(&expected, " ", key);
  if (!node.IsMap()) {
    return ErrorAt(node.Mark(), rule,
                   absl::StrCat("expected a map with the keys", expected));
  }
  std::map<std::string, YAML::Node> entries;
  for (const auto& entry : node) {
    const std::string key =
        entry.first.IsScalar() ? entry.first.Scalar() : "(not a scalar)";
    if (keys.count(key) == 0) {
      return ErrorAt(
          entry.first.Mark(), rule,
          absl::StrCat("unknown key ", key, "; there are", expected));
    }
    if (!entries.emplace(key, entry.second).second) {
      return ErrorAt(entry.first.Mark(), rule, absl::StrCat("a second ", key));
    }
  }
  return entries;
}

absl::StatusOr<const Grid*> ReadGrid(const YAML::Node& node, int rule) {
  const auto grid = quant::GridByName(node.IsScalar() ? node.Scalar() : "");
  if (!grid.ok()) return ErrorAt(node.Mark(), rule, grid.status().message());
  return *grid;
}

absl::StatusOr<QuantRule> ReadRule(const YAML::Node& node, int rule) {
  ASSIGN_OR_RETURN(const auto entries,
                   ReadMap(node, rule, {"tensors", "grid"}));
  for (const char* key : {"tensors", "grid"}) {
    if (entries.count(key) == 0) {
      return ErrorAt(node.Mark(), rule, absl::StrCat(key, " is missing"));
    }
  }
  const YAML::Node& tensors = entries.at("tensors");
  auto pattern = NamePattern::Parse(tensors.IsScalar() ? tensors.Scalar() : "");
  if (!pattern.ok()) {
    return ErrorAt(tensors.Mark(), rule, pattern.status().message());
  }
  ASSIGN_OR_RETURN(const Grid* grid, ReadGrid(entries.at("grid"), rule));
  return QuantRule{*std::move(pattern), grid};
}

absl::StatusOr<QuantPlan> ReadPlan(const YAML::Node& root) {
  ASSIGN_OR_RETURN(const auto entries, ReadMap(root, 0, {"default", "rules"}));
  if (entries.count("default") == 0) {
    return PlanError("the key default is missing");
  }
  ASSIGN_OR_RETURN(const Grid* grid, ReadGrid(entries.at("default"), 0));
  std::vector<QuantRule> rules;
  if (entries.count("rules") > 0 && !entries.at("rules").IsNull()) {
    const YAML::Node& list = entries.at("rules");
    if (!list.IsSequence()) {
      return ErrorAt(list.Mark(), 0, "rules: expected a list");
    }
    for (const auto& item : list) {
      ASSIGN_OR_RETURN(QuantRule rule,
                       ReadRule(item, static_cast<int>(rules.size()) + 1));
      rules.push_back(std::move(rule));
    }
  }
  return QuantPlan(*grid, std::move(rules));
}

// The matrices of no layer. A pattern has to be their full name, and without
// one they are on int8_g32: checkpoints that were made for 4 bits, too, keep
// more for them.
bool IsOutsideLayers(absl::string_view name) {
  return name == kGgufEmbedding || name == kGgufPerLayerEmbedding ||
         name == kGgufPerLayerProjection || name == kGgufHead;
}

bool IsLinear(absl::string_view name) {
  static const auto* suffixes = [] {
    const std::vector<std::string> names = LinearSuffixes();
    return new std::set<std::string>(names.begin(), names.end());
  }();
  const std::vector<std::string> parts =
      absl::StrSplit(name, absl::MaxSplits('.', 2));
  return parts.size() == 3 && parts[0] == "blk" && !parts[1].empty() &&
         std::all_of(parts[1].begin(), parts[1].end(), absl::ascii_isdigit) &&
         suffixes->count(parts[2]) > 0;
}

// True if the rule is the one to use for this tensor unless an earlier one is.
bool Applies(const QuantRule& rule, absl::string_view name) {
  return IsOutsideLayers(name) ? rule.pattern.text() == name
                               : rule.pattern.Matches(name);
}

// The linears, then the tables.
struct Matrix {
  std::string name;
  int64_t rows;
  int64_t cols;
};

std::vector<Matrix> Matrices(const GemmaConfig& config) {
  std::vector<Matrix> matrices;
  for (const LinearSpec& spec : GemmaLinears(config)) {
    matrices.push_back({spec.gguf_name, spec.out, spec.in});
  }
  for (const TableSpec& spec : GemmaTables(config)) {
    matrices.push_back({spec.gguf_name, spec.rows, spec.cols});
  }
  return matrices;
}

// A pattern built by this file.
QuantRule Rule(const std::string& pattern, const Grid& grid,
               const std::string& comment) {
  return {*NamePattern::Parse(pattern), &grid, comment};
}

QuantPlan MobilePlan(const GemmaConfig& config) {
  const int64_t layers = config.layer_count();
  const int64_t late = (layers * 3 + 3) / 7;  // 3/7, to the nearest
  std::vector<QuantRule> rules;
  if (config.family == GemmaFamily::kGemma3) {
    rules.push_back(Rule(kGgufEmbedding, quant::kInt4G32,
                         "2 bits in the mobile checkpoint of Gemma 4 E2B."));
  } else {
    rules.push_back(Rule(kGgufEmbedding, quant::kInt2G64,
                         "As in the mobile checkpoint of Gemma 4 E2B."));
  }
  if (config.per_layer_width > 0) {
    rules.push_back(Rule(kGgufPerLayerEmbedding, quant::kInt4G32,
                         "As in that checkpoint: each layer's own input."));
    rules.push_back(Rule("blk.*.inp_gate.weight", quant::kInt8G32, ""));
    rules.push_back(Rule("blk.*.proj.weight", quant::kInt8G32, ""));
  }
  if (late < layers) {
    rules.push_back(
        Rule(absl::StrCat("blk.{", late, "-", layers - 1, "}.ffn_*.weight"),
             quant::kInt2G64,
             "As in that checkpoint: the MLP of the last 4/7 of the layers."));
  }
  return QuantPlan(quant::kInt4G32, std::move(rules));
}

}  // namespace

absl::StatusOr<QuantPlan> QuantPlan::Parse(absl::string_view text) {
  try {
    if (common::HasMoreYamlDocuments(text)) {
      return PlanError("expected one YAML document, found more");
    }
    const YAML::Node root = YAML::Load(std::string(text));
    return ReadPlan(root);
  } catch (const YAML::Exception& error) {
    return ErrorAt(error.mark, 0, error.msg);
  }
}

absl::StatusOr<QuantPlan> QuantPlan::Preset(absl::string_view name,
                                            const GemmaConfig& config) {
  if (name == "int4") {
    return QuantPlan(quant::kInt4G32,
                     {Rule(kGgufEmbedding, quant::kInt8G32,
                           "Table of the tokens and output head in one.")});
  }
  if (name == "mobile_e2b") return MobilePlan(config);
  return PlanError(absl::StrCat("no preset is named ", name,
                                "; there are int4 and mobile_e2b"),
                   {{"preset", std::string(name)}});
}

std::string QuantPlan::ToText() const {
  std::string text = absl::StrCat(kHeader, "default: ", default_->name, "\n");
  absl::StrAppend(&text, rules_.empty() ? "rules: []\n" : "rules:\n");
  for (const QuantRule& rule : rules_) {
    if (!rule.comment.empty()) {
      for (absl::string_view line : absl::StrSplit(rule.comment, '\n')) {
        absl::StrAppend(&text, "  # ", line, "\n");
      }
    }
    YAML::Emitter pattern;  // Quotes what has to be escaped.
    pattern << YAML::DoubleQuoted << rule.pattern.text();
    absl::StrAppend(&text, "  - tensors: ", pattern.c_str(),
                    "\n    grid: ", rule.grid->name, "\n");
  }
  return text;
}

absl::StatusOr<const Grid*> QuantPlan::GridFor(
    absl::string_view gguf_tensor_name) const {
  if (!IsOutsideLayers(gguf_tensor_name) && !IsLinear(gguf_tensor_name)) {
    return PlanError(
        absl::StrCat(gguf_tensor_name, " is neither a linear layer nor ",
                     kGgufEmbedding),
        {{"tensor", std::string(gguf_tensor_name)}});
  }
  for (const QuantRule& rule : rules_) {
    if (Applies(rule, gguf_tensor_name)) return rule.grid;
  }
  return IsOutsideLayers(gguf_tensor_name) ? &quant::kInt8G32 : default_;
}

absl::Status CheckPlan(const QuantPlan& plan, const GemmaConfig& config) {
  const std::vector<Matrix> matrices = Matrices(config);
  for (const Matrix& matrix : matrices) {
    ASSIGN_OR_RETURN(const Grid* grid, plan.GridFor(matrix.name));
    if (matrix.cols % grid->group != 0) {
      return PlanError(absl::StrCat(matrix.name, ": ", grid->name,
                                    " needs inputs in a multiple of ",
                                    grid->group, ", found ", matrix.cols),
                       {{"tensor", matrix.name}, {"grid", grid->name}});
    }
  }
  for (size_t i = 0; i < plan.rules().size(); ++i) {
    const QuantRule& rule = plan.rules()[i];
    if (std::none_of(matrices.begin(), matrices.end(),
                     [&](const Matrix& m) { return Applies(rule, m.name); })) {
      return PlanError(absl::StrCat("rule ", i + 1, ": ", rule.pattern.text(),
                                    " fits no matrix of a model with ",
                                    config.layer_count(), " layers"),
                       {{"rule", absl::StrCat(i + 1)}});
    }
  }
  return absl::OkStatus();
}

int64_t PlanBytes(const QuantPlan& plan, const GemmaConfig& config) {
  int64_t bytes = 0;
  for (const Matrix& matrix : Matrices(config)) {
    bytes += GridBytes(**plan.GridFor(matrix.name), matrix.rows, matrix.cols);
  }
  return bytes;
}

int64_t GridBytes(const Grid& grid, int64_t rows, int64_t cols) {
  return rows * *quant::RowBytes(quant::BlockType(grid), cols);
}

}  // namespace onegrid::model
