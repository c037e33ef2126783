// Where the files of a LoRA adapter lie.
#ifndef SERVICES_COMMON_ADAPTER_FILES_H_
#define SERVICES_COMMON_ADAPTER_FILES_H_

#include <string>

#include "absl/status/statusor.h"

namespace onegrid::common {

// PEFT's tensors and their config, or llama.cpp's GGUF and no config.
struct AdapterFiles {
  std::string tensors;
  std::string config;
};

// The files at `path`: a GGUF, or a folder with adapter_config.json and
// adapter_model.safetensors (or adapter.safetensors). Looks at names only.
// NotFound (MISSING_FILE; path): there are no such files. InvalidArgument
// (UNSUPPORTED_ADAPTER; path): a folder with adapter_model.bin only, or one
// safetensors file alone.
absl::StatusOr<AdapterFiles> FindAdapterFiles(const std::string& path);

}  // namespace onegrid::common

#endif  // SERVICES_COMMON_ADAPTER_FILES_H_
