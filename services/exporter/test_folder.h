// Hugging Face folders in memory, for tests that change them.
#ifndef SERVICES_EXPORTER_TEST_FOLDER_H_
#define SERVICES_EXPORTER_TEST_FOLDER_H_

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"

namespace onegrid::exporter {

struct TestTensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::vector<uint8_t> bytes;
};

template <typename T>
TestTensor MakeTensor(const std::string& dtype, std::vector<int64_t> shape,
                      const std::vector<T>& values) {
  TestTensor tensor{dtype, std::move(shape), {}};
  tensor.bytes.resize(values.size() * sizeof(T));
  std::memcpy(tensor.bytes.data(), values.data(), tensor.bytes.size());
  return tensor;
}

template <typename T>
std::vector<T> ValuesOf(const TestTensor& tensor) {
  std::vector<T> values(tensor.bytes.size() / sizeof(T));
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

// What a test wants otherwise it changes before Write.
struct TestFolder {
  std::map<std::string, TestTensor> tensors;
  nlohmann::ordered_json config;

  // Of compressed-tensors.
  nlohmann::ordered_json& group(const std::string& name = "group_0") {
    return config["quantization_config"]["config_groups"][name];
  }
  // Writes config.json and model.safetensors into the folder and returns it.
  // CHECK-fails on errors.
  std::string Write(const std::string& folder) const;
};

// CHECK-fails on errors.
TestFolder ReadTestFolder(const std::string& folder);

}  // namespace onegrid::exporter

#endif  // SERVICES_EXPORTER_TEST_FOLDER_H_
