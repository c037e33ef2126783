#include "services/exporter/peft_export.h"

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/model/safetensors.h"

namespace onegrid::exporter {

absl::StatusOr<std::vector<std::string>> WritePeft(
    const model::Adapter& adapter, const std::string& base_name,
    const std::string& folder) {
  model::SafetensorsWriter writer;
  writer.SetMetadata("format", "pt");
  for (const model::AdapterPair& pair : adapter.pairs()) {
    RETURN_IF_ERROR(
        writer.Add(pair.a_name, "F32", {pair.rank, pair.spec.in}, pair.a));
    RETURN_IF_ERROR(
        writer.Add(pair.b_name, "F32", {pair.spec.out, pair.rank}, pair.b));
  }
  RETURN_IF_ERROR(
      writer.WriteTo(absl::StrCat(folder, "/adapter_model.safetensors")));
  // Adapter::Open has parsed this text.
  auto config = nlohmann::ordered_json::parse(adapter.config_json());
  config["peft_type"] = "LORA";
  config["base_model_name_or_path"] = base_name;
  config["inference_mode"] = true;
  RETURN_IF_ERROR(common::WriteFileAtomic(
      absl::StrCat(folder, "/adapter_config.json"), config.dump(2) + "\n"));
  return std::vector<std::string>{"adapter_model.safetensors",
                                  "adapter_config.json"};
}

}  // namespace onegrid::exporter
