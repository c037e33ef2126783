// A Hugging Face config.json.
#include <cstddef>
#include <cstdint>

#include "services/model/gemma_config.h"
#include "services/model/hf_model_config.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace onegrid;
  const auto config =
      model::ConfigFromHfJson(fuzz::View(data, size), "/a/config.json");
  fuzz::PromiseNamed(config.status(), "/a/config.json");
  if (!config.ok()) return 0;
  model::GemmaMetadata(*config);
  const auto written = model::HfConfigJson(*config, "float32", "");
  fuzz::Promise(written.ok(), "a configuration cannot be written");
  const auto again = model::ConfigFromHfJson(*written, "");
  fuzz::Promise(again.ok(), again.status().ToString());
  fuzz::Promise(again->vocab_size == config->vocab_size &&
                    again->layers == config->layers,
                "a configuration changes when it is written");
  return 0;
}
