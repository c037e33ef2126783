#include "services/inference/tiny_adapter.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <random>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/model/safetensors.h"
#include "services/model/tensor_names.h"

namespace onegrid::inference {
namespace {

// Uniform, the same on every standard library.
std::vector<uint8_t> Random(std::mt19937_64& random, int64_t count,
                            double deviation) {
  std::vector<uint8_t> bytes(static_cast<size_t>(count) * sizeof(float));
  for (int64_t i = 0; i < count; ++i) {
    const double uniform = static_cast<double>(random() >> 11) * 0x1.0p-53;
    const auto value =
        static_cast<float>((uniform * 2 - 1) * std::sqrt(3.0) * deviation);
    std::memcpy(bytes.data() + i * sizeof(float), &value, sizeof(float));
  }
  return bytes;
}

}  // namespace

absl::Status WriteTinyAdapter(const std::string& folder,
                              const model::GemmaConfig& config,
                              const TinyAdapterOptions& options) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  std::mt19937_64 random(options.seed);
  model::SafetensorsWriter writer;
  const int64_t rank = options.rank;
  for (const model::LinearSpec& spec : model::GemmaLinears(config)) {
    if (options.kinds.count(spec.kind) == 0 || spec.experts != 1) continue;
    const std::string stem =
        absl::StrCat("base_model.model.", spec.hf_name, ".lora_");
    const double a = 1 / std::sqrt(static_cast<double>(spec.in));
    const double b = 0.3 / std::sqrt(static_cast<double>(rank));
    RETURN_IF_ERROR(writer.Add(stem + "A.weight", "F32", {rank, spec.in},
                               Random(random, rank * spec.in, a)));
    RETURN_IF_ERROR(writer.Add(stem + "B.weight", "F32", {spec.out, rank},
                               Random(random, spec.out * rank, b)));
  }
  RETURN_IF_ERROR(writer.WriteTo(folder + "/adapter_model.safetensors"));
  return common::WriteFileAtomic(
      folder + "/adapter_config.json",
      absl::StrCat(R"({"peft_type": "LORA", "r": )", rank,
                   R"(, "lora_alpha": )", 2 * rank,
                   R"(, "target_modules": "all-linear"})"));
}

}  // namespace onegrid::inference
