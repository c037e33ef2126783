#include "services/exporter/test_folder.h"

#include "kernels/base/check.h"
#include "services/common/files.h"
#include "services/model/safetensors.h"

namespace onegrid::exporter {

std::string TestFolder::Write(const std::string& folder) const {
  model::SafetensorsWriter writer;
  for (const auto& [name, tensor] : tensors) {
    KERNELS_CHECK(
        writer.Add(name, tensor.dtype, tensor.shape, tensor.bytes).ok());
  }
  KERNELS_CHECK(writer.WriteTo(folder + "/model.safetensors").ok());
  KERNELS_CHECK(
      common::WriteFileAtomic(folder + "/config.json", config.dump()).ok());
  return folder;
}

TestFolder ReadTestFolder(const std::string& folder) {
  TestFolder read;
  const auto file = model::SafetensorsFile::Open(folder + "/model.safetensors");
  KERNELS_CHECK(file.ok());
  for (const std::string& name : (*file)->names()) {
    const auto* tensor = (*file)->Find(name);
    read.tensors[name] = {tensor->dtype,
                          tensor->shape,
                          {tensor->data.begin(), tensor->data.end()}};
  }
  read.config =
      nlohmann::ordered_json::parse(*common::ReadFile(folder + "/config.json"));
  return read;
}

}  // namespace onegrid::exporter
