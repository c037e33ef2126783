// A LoRA adapter: adapter_config.json, then the safetensors file; with an empty
// config a GGUF.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "services/model/adapter.h"
#include "services/model/tensor_names.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/tiny_files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace onegrid;
  static const auto* const linears = new std::vector<model::LinearSpec>(
      model::GemmaLinears(fuzz::TinyConfig()));
  const std::vector<absl::string_view> files =
      fuzz::Files(fuzz::View(data, size), 2);
  common::AdapterFiles paths;
  if (!files[0].empty()) {
    paths.config = fuzz::Put("adapter_config.json", files[0]);
  }
  paths.tensors = fuzz::Put("adapter", files[1]);
  const auto adapter = model::Adapter::Open(paths, "gemma3", *linears);
  fuzz::PromiseNamed(adapter.status(), fuzz::Folder());
  if (!adapter.ok()) return 0;
  fuzz::Promise(std::isfinite((*adapter)->gguf_alpha()),
                "an alpha that is not finite");
  fuzz::Promise(!(*adapter)->pairs().empty(), "no pair");
  for (const model::AdapterPair& pair : (*adapter)->pairs()) {
    fuzz::Promise(pair.rank >= 1 && std::isfinite(pair.scale) && pair.scale > 0,
                  "a pair without a scale");
    const auto rank = static_cast<size_t>(pair.rank);
    fuzz::Promise(
        pair.a.size() == 4 * rank * static_cast<size_t>(pair.spec.in) &&
            pair.b.size() == 4 * rank * static_cast<size_t>(pair.spec.out),
        "matrices of another size");
    fuzz::Promise((*adapter)->GgufB(pair).size() == pair.b.size(),
                  "B of another size");
    for (const auto& matrix : {pair.a, pair.b}) {
      for (size_t at = 0; at < matrix.size(); at += 4) {
        float value;
        std::memcpy(&value, &matrix[at], sizeof(value));
        fuzz::Promise(std::isfinite(value), "a value that is not finite");
      }
    }
  }
  return 0;
}
