#include "client/cli/report.h"

#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"

namespace onegrid::cli {
namespace {

nlohmann::json Metrics(const v1::ModelMetrics& metrics) {
  return {{"accuracy", metrics.accuracy()},
          {"perplexity", metrics.perplexity()},
          {"examples", metrics.examples()}};
}

int64_t FolderBytes(const std::string& path) {
  std::error_code error;
  int64_t total = 0;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(path, error)) {
    if (entry.is_regular_file()) total += entry.file_size();
  }
  return total;
}

// The GGUF files of an export together: all its shards.
int64_t GgufBytes(const v1::Export& exported, v1::ExportFormat format) {
  int64_t total = 0;
  for (const v1::ExportedArtifact& artifact : exported.artifacts()) {
    if (artifact.format() != format) continue;
    for (const v1::ArtifactRef& file : artifact.files()) {
      if (absl::EndsWith(file.file_name(), ".gguf")) total += file.size_bytes();
    }
  }
  return total;
}

void PrintModel(const nlohmann::json& report, const char* key,
                const char* title, std::ostream& out) {
  if (!report.contains(key)) return;
  out << absl::StreamFormat("| %-30s | %8.1f | %10.3f |\n", title,
                            report[key].value("accuracy", 0.0),
                            report[key].value("perplexity", 0.0));
}

void PrintFile(const nlohmann::json& report, const char* key,
               std::ostream& out) {
  if (!report["served"].contains(key)) return;
  out << absl::StreamFormat(
      "  %-20s %8.1f MB  %s\n", key,
      report["served"][std::string(key) + "_bytes"].get<double>() / 1e6,
      report["served"][key].get<std::string>());
}

}  // namespace

nlohmann::json MakeReport(const ReportInput& input) {
  nlohmann::json report;
  if (input.base.has_metrics()) report["base"] = Metrics(input.base.metrics());
  if (input.tuning_job.result().has_float_adapter()) {
    report["float_adapter"] =
        Metrics(input.tuning_job.result().float_adapter());
  }
  report["folded_by_trainer"] =
      Metrics(input.tuning_job.result().folded_metrics());
  report["served"] = Metrics(input.served.metrics());
  const struct {
    std::string key;
    const std::string& path;
    int64_t bytes;
  } files[] = {{"gguf", input.files.gguf, GgufBytes(input.exported, v1::GGUF)},
               {"compressed_tensors", input.files.compressed_tensors,
                FolderBytes(input.files.compressed_tensors)},
               {"adapter_gguf", input.files.adapter_gguf,
                GgufBytes(input.exported, v1::LORA_GGUF)}};
  for (const auto& [key, path, bytes] : files) {
    if (path.empty()) continue;
    report["served"][key] = path;
    report["served"][key + "_bytes"] = bytes;
  }
  const v1::EquivalenceReport& equivalence = input.verify.equivalence();
  report["equivalence"] = {
      {"tensors", equivalence.tensors()},
      {"tensors_bit_exact", equivalence.tensors_bit_exact()},
      {"probe_tokens", equivalence.probe_tokens()},
      {"top1_float", equivalence.float_engine().top1_agreement()},
      {"kl_float", equivalence.float_engine().mean_kl()},
      {"top1_served", equivalence.served_engine().top1_agreement()},
      {"kl_served", equivalence.served_engine().mean_kl()},
      {"verdict", v1::EquivalenceReport::Verdict_Name(equivalence.verdict())},
      {"engine", equivalence.served_engine().engine()}};
  if (equivalence.has_served_arithmetic()) {
    const v1::LogitAgreement& bits = equivalence.served_arithmetic();
    report["equivalence"]["kl_served_arithmetic"] = bits.mean_kl();
    report["equivalence"]["top1_served_arithmetic"] = bits.top1_agreement();
  }
  report["tokens_per_second"] = {
      {"tune", input.tuning_job.result().tokens_per_second()},
      {"prefill", input.served.prefill_tokens_per_second()},
      {"decode", input.served.decode_tokens_per_second()}};
  report["codes_changed"] = input.tuning_job.result().codes_changed();
  report["job_seconds"] = input.job_seconds;
  return report;
}

void PrintReport(const nlohmann::json& report, std::ostream& out) {
  out << "\n| model (held-out test split)      | accuracy | perplexity |\n"
         "|--------------------------------|----------|------------|\n";
  PrintModel(report, "base", "base, int4, served", out);
  PrintModel(report, "float_adapter", "tuned, float adapter", out);
  PrintModel(report, "folded_by_trainer", "tuned, int4, in the trainer", out);
  PrintModel(report, "served", "tuned, int4, served", out);
  const nlohmann::json& speed = report["tokens_per_second"];
  out << absl::StreamFormat(
      "\ntokens/s: tune %.0f, prefill %.0f, decode %.1f\n",
      speed.value("tune", 0.0), speed.value("prefill", 0.0),
      speed.value("decode", 0.0));
  const nlohmann::json& equivalence = report["equivalence"];
  out << absl::StreamFormat(
      "equivalence: %s; level 1: %d of %d tensors bit-exact; level 2 on %d "
      "tokens: float KL %.2g top-1 %.2f%%, served KL %.2g top-1 %.2f%%",
      equivalence.value("verdict", ""),
      equivalence.value("tensors_bit_exact", int64_t{0}),
      equivalence.value("tensors", int64_t{0}),
      equivalence.value("probe_tokens", int64_t{0}),
      equivalence.value("kl_float", 0.0),
      100 * equivalence.value("top1_float", 0.0),
      equivalence.value("kl_served", 0.0),
      100 * equivalence.value("top1_served", 0.0));
  if (equivalence.contains("kl_served_arithmetic")) {
    out << absl::StreamFormat(
        ", trainer's served arithmetic KL %.2g top-1 %.2f%%",
        equivalence.value("kl_served_arithmetic", 0.0),
        100 * equivalence.value("top1_served_arithmetic", 0.0));
  }
  out << "\n";
  out << "files:\n";
  for (const char* key : {"gguf", "compressed_tensors", "adapter_gguf"}) {
    PrintFile(report, key, out);
  }
  out << absl::StreamFormat("job: %.0f s\n", report.value("job_seconds", 0.0));
}

}  // namespace onegrid::cli
