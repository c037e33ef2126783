#include "services/model/hf_config_file.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/model/mapped_file.h"

namespace onegrid::model {
namespace {

using nlohmann::json;

// JSON is written out again by recursion.
constexpr int kDepthMax = 100;

constexpr char kQuantization[] = "quantization_config";
constexpr char kMethod[] = "quant_method";
constexpr char kModules[] = "module_quant_configs";
constexpr char kTied[] = "tie_word_embeddings";
constexpr char kText[] = "text_config";
constexpr char kArchitectures[] = "architectures";

// Takes tie_word_embeddings out of an object; false if it was false.
bool TakeTied(json& config) {
  const bool tied = !config.contains(kTied) || config[kTied] != false;
  config.erase(kTied);
  return tied;
}

// Puts the text model of a multimodal one in its place; false if it is none.
bool TakeTextModel(json& config) {
  static const auto* text_models = new std::map<std::string, std::string>{
      {"Gemma3ForConditionalGeneration", "Gemma3ForCausalLM"},
      {"Gemma4ForConditionalGeneration", "Gemma4ForCausalLM"},
      {"Gemma4UnifiedForConditionalGeneration", "Gemma4ForCausalLM"}};
  if (!config.contains(kText) || !config[kText].is_object() ||
      !config.contains(kArchitectures) || !config[kArchitectures].is_array() ||
      config[kArchitectures].size() != 1 ||
      !config[kArchitectures][0].is_string()) {
    return false;
  }
  const auto found =
      text_models->find(config[kArchitectures][0].get<std::string>());
  if (found == text_models->end()) return false;
  json text = config[kText];
  text[kArchitectures] = {found->second};
  for (const char* id : {"bos_token_id", "eos_token_id", "pad_token_id"}) {
    if (!text.contains(id) && config.contains(id)) text[id] = config[id];
  }
  config = std::move(text);
  return true;
}

std::string Text(const json& value) {
  return value.dump(-1, ' ', /*ensure_ascii=*/true);
}

}  // namespace

absl::StatusOr<HfConfigFile> ReadHfConfigFile(const std::string& folder) {
  HfConfigFile file;
  file.path = absl::StrCat(folder, "/config.json");
  ASSIGN_OR_RETURN(file.model_json, common::ReadFile(file.path));
  int depth_max = 0;
  std::string keys[2];  // that the parser is in, from the root on
  json config = json::parse(
      file.model_json,
      [&](int depth, json::parse_event_t event, json& parsed) {
        depth_max = std::max(depth_max, depth);
        if (event != json::parse_event_t::key) return true;
        if (depth == 1 || depth == 2) keys[depth - 1] = parsed;
        if (depth == 3 && keys[0] == kQuantization && keys[1] == kModules) {
          file.module_patterns.push_back(parsed);
        }
        return true;
      },
      /*allow_exceptions=*/false);
  if (depth_max > kDepthMax) {
    return CorruptFile(file.path,
                       absl::StrCat("nested ", depth_max,
                                    " deep, expected at most ", kDepthMax));
  }
  if (!config.is_object()) return CorruptFile(file.path, "not a JSON object");
  const bool quantized =
      config.contains(kQuantization) && !config[kQuantization].is_null();
  if (quantized) {
    const json& quantization = config[kQuantization];
    file.quantization_json = Text(quantization);
    if (quantization.is_object() && quantization.contains(kMethod) &&
        quantization[kMethod].is_string()) {
      file.quant_method = quantization[kMethod];
    }
  }
  config.erase(kQuantization);
  file.tied_head = TakeTied(config);
  if (config.contains(kText) && config[kText].is_object() &&
      !TakeTied(config[kText])) {
    file.tied_head = false;
  }
  file.multimodal = TakeTextModel(config);
  file.model_json = Text(config);
  return file;
}

}  // namespace onegrid::model
