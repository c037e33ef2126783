#ifndef SERVICES_MODEL_HF_CONFIG_FILE_H_
#define SERVICES_MODEL_HF_CONFIG_FILE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace onegrid::model {

// The config.json of a Hugging Face folder, taken apart: what says how the
// weights are stored is kept from what says which model they are.
struct HfConfigFile {
  std::string path;
  // For ConfigFromHfJson: the file without the members below; of a multimodal
  // model its text_config.
  std::string model_json;
  // The text model is part of a multimodal one: its tensors stand among others,
  // under longer names (SafetensorsFolder::KeepTextModel).
  bool multimodal = false;
  // The object quantization_config; empty if there is none.
  std::string quantization_json;
  // Its quant_method; empty if it has none.
  std::string quant_method;
  // The keys of its module_quant_configs as they stand in the file, which
  // quantization_json has in another order.
  std::vector<std::string> module_patterns;
  // False if tie_word_embeddings is, of the model or of its text_config:
  // lm_head.weight is in the files then.
  bool tied_head = true;
};

// NotFound: no config.json. DataLoss (CORRUPT_FILE): not a JSON object, or one
// nested too deeply.
absl::StatusOr<HfConfigFile> ReadHfConfigFile(const std::string& folder);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_HF_CONFIG_FILE_H_
