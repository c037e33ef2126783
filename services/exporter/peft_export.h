// Writes the adapter as a folder that peft loads.
#ifndef SERVICES_EXPORTER_PEFT_EXPORT_H_
#define SERVICES_EXPORTER_PEFT_EXPORT_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/model/adapter.h"

namespace onegrid::exporter {

// Writes adapter_model.safetensors (the trained F32 matrices) and
// adapter_config.json (the trainer's, with base_model_name_or_path set to
// `base_name`, peft_type LORA and inference_mode true) into the existing
// `folder`; returns their names. Each file is written atomically.
absl::StatusOr<std::vector<std::string>> WritePeft(
    const model::Adapter& adapter, const std::string& base_name,
    const std::string& folder);

}  // namespace onegrid::exporter

#endif  // SERVICES_EXPORTER_PEFT_EXPORT_H_
