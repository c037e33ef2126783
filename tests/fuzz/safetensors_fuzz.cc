// A safetensors file, and what this project keeps in such files.
#include <cstddef>
#include <cstdint>

#include "services/evaluator/probe_file.h"
#include "services/model/safetensors.h"
#include "tests/fuzz/fuzz_input.h"

namespace onegrid::fuzz {
namespace {

void ReadProbe(const std::string& path) {
  const auto probe = evaluator::ProbeFile::Open(path);
  PromiseNamed(probe.status(), path);
  if (!probe.ok()) return;
  double sum = 0;
  for (int s = 0; s < (*probe)->sequences(); ++s) {
    Promise((*probe)->tokens(s).size() >= 2, "a sequence is too short");
    for (const int32_t id : (*probe)->top_ids(s)) sum += id;
    for (const float value : (*probe)->top_logprobs(s)) sum += value;
  }
  [[maybe_unused]] static volatile double kept;
  kept = sum;
}

}  // namespace
}  // namespace onegrid::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace onegrid::fuzz;
  const std::string path = Put("a.safetensors", View(data, size));
  const auto file = onegrid::model::SafetensorsFile::Open(path);
  PromiseNamed(file.status(), path);
  if (!file.ok()) return 0;
  size_t bytes = 0;
  uint8_t any = 0;
  for (const std::string& name : (*file)->names()) {
    const auto* tensor = (*file)->Find(name);
    Promise(tensor != nullptr, "a tensor is not found");
    bytes += tensor->data.size();
    for (const uint8_t byte : tensor->data) any |= byte;
  }
  [[maybe_unused]] static volatile uint8_t kept;
  kept = any;
  Promise(bytes <= size, "tensors are larger than the file");
  ReadProbe(path);
  return 0;
}
