// A LoRA adapter: adapter_config.json, then the safetensors file.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "services/exporter/adapter.h"
#include "services/model/tensor_names.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/tiny_files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace onegrid;
  static const auto* const linears = new std::vector<model::LinearSpec>(
      model::GemmaLinears(fuzz::TinyConfig()));
  const std::vector<absl::string_view> files =
      fuzz::Files(fuzz::View(data, size), 2);
  const std::string config = fuzz::Put("adapter_config.json", files[0]);
  const std::string path = fuzz::Put("adapter.safetensors", files[1]);
  const auto adapter = exporter::Adapter::Open(path, config, *linears);
  fuzz::PromiseNamed(adapter.status(), fuzz::Folder());
  if (!adapter.ok()) return 0;
  fuzz::Promise(std::isfinite((*adapter)->gguf_alpha()),
                "an alpha that is not finite");
  for (const exporter::AdapterPair& pair : (*adapter)->pairs()) {
    fuzz::Promise(pair.rank >= 1 && std::isfinite(pair.scale),
                  "a pair without a scale");
    fuzz::Promise((*adapter)->GgufB(pair).size() == pair.b.size(),
                  "B of another size");
  }
  return 0;
}
