#include "services/finetuner/merge_adapter.h"

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/finetuner/tensor_file.h"

namespace onegrid::finetuner {
namespace {

absl::Status Refuse(absl::StatusCode code, const char* reason,
                    const std::string& what, const std::string& path) {
  return common::MakeError(code, reason, absl::StrCat(path, ": ", what),
                           {{"file", path}});
}

// What adapter_config.json says about scales.
struct Scales {
  double alpha = 0;
  bool use_rslora = false;
  nlohmann::json alpha_pattern = nlohmann::json::object();

  double Of(const std::string& module, int64_t rank) const {
    const auto found = alpha_pattern.find(module);
    const double a =
        found == alpha_pattern.end() ? alpha : found->get<double>();
    const auto r = static_cast<double>(rank);
    return a / (use_rslora ? std::sqrt(r) : r);
  }
};

absl::StatusOr<Scales> ReadScales(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, common::ReadFile(path));
  Scales scales;
  try {
    const nlohmann::json config = nlohmann::json::parse(text);
    if (config.value("use_dora", false)) {
      return Refuse(absl::StatusCode::kInvalidArgument, "UNSUPPORTED_ADAPTER",
                    "use_dora is not supported", path);
    }
    scales.alpha = config.at("lora_alpha").get<double>();
    scales.use_rslora = config.value("use_rslora", false);
    scales.alpha_pattern =
        config.value("alpha_pattern", nlohmann::json::object());
  } catch (const nlohmann::json::exception& error) {
    return Refuse(absl::StatusCode::kDataLoss, "CORRUPT_FILE", error.what(),
                  path);
  }
  return scales;
}

}  // namespace

absl::Status MergeAdapter(const std::string& folder,
                          FloatCheckpoint* checkpoint) {
  std::string path = folder + "/adapter.safetensors";
  if (!std::filesystem::exists(path)) {
    path = folder + "/adapter_model.safetensors";
  }
  ASSIGN_OR_RETURN(const Scales scales,
                   ReadScales(folder + "/adapter_config.json"));
  ASSIGN_OR_RETURN(const TensorFile file, TensorFile::Open(path));
  int64_t merged = 0;
  for (size_t i = 0; i < checkpoint->specs.size(); ++i) {
    const model::LinearSpec& spec = checkpoint->specs[i];
    const std::string stem = absl::StrCat("base_model.model.", spec.hf_name);
    if (!file.Has(stem + ".lora_A.weight") &&
        !file.Has(stem + ".lora_B.weight")) {
      continue;
    }
    ASSIGN_OR_RETURN(at::Tensor a, file.Get(stem + ".lora_A.weight"));
    ASSIGN_OR_RETURN(at::Tensor b, file.Get(stem + ".lora_B.weight"));
    if (a.dim() != 2 || b.dim() != 2 || a.size(0) != b.size(1) ||
        a.size(0) < 1 || a.size(1) != spec.in || b.size(0) != spec.out) {
      return Refuse(absl::StatusCode::kDataLoss, "CORRUPT_FILE",
                    stem + " has matrices that do not fit", path);
    }
    checkpoint->linears[i].addmm_(b.to(at::kFloat), a.to(at::kFloat), 1,
                                  scales.Of(spec.hf_name, a.size(0)));
    ++merged;
  }
  if (merged == 0) {
    return Refuse(absl::StatusCode::kInvalidArgument, "UNSUPPORTED_ADAPTER",
                  "has no matrix of this model", path);
  }
  return absl::OkStatus();
}

}  // namespace onegrid::finetuner
