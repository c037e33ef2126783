// Measures the inference engine in process, without gRPC.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/machine_limits.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/common/thread_count.h"
#include "services/inference/bench_case.h"
#include "services/inference/engine.h"
#include "services/inference/gemma_weights.h"
#include "services/inference/op_profile.h"
#include "services/inference/served_model.h"
#include "services/model/gguf_reader.h"
#include "services/model/tokenizer.h"

ABSL_FLAG(std::string, model, "", "GGUF file.");
ABSL_FLAG(std::vector<std::string>, prompt, {"512"},
          "Tokens of prompts to run (pp), comma-separated; 0: none.");
ABSL_FLAG(std::vector<std::string>, generate, {"128"},
          "Tokens to generate (tg), comma-separated; 0: none.");
ABSL_FLAG(std::vector<std::string>, depth, {"0"},
          "Tokens that each sequence holds before, comma-separated.");
ABSL_FLAG(std::vector<std::string>, batch, {"1"},
          "Sequences that generate together, comma-separated.");
ABSL_FLAG(std::vector<std::string>, top_k, {"0"},
          "The largest logits that are asked for in generation, "
          "comma-separated; 0: all.");
ABSL_FLAG(std::string, text, "",
          "File of plain text whose tokens are run, over and over; empty: "
          "random tokens. With --top_k it should be real text: what is learnt "
          "from random tokens tells nothing of others.");
ABSL_FLAG(int, repetitions, 5, "Of each case.");
ABSL_FLAG(int, step_tokens, 512, "Most tokens of a prompt computed at once.");
ABSL_FLAG(std::string, activations, "int8",
          "Precision of the linears' inputs: int8 or f32.");
ABSL_FLAG(std::string, kv_cache, "int8",
          "Precision of keys and values: int8, bf16 or f32.");
ABSL_FLAG(std::string, isa, "auto",
          "Instruction set: auto, amx_int8, avx512_vnni, avx2_vnni, avx2 or "
          "reference.");
ABSL_FLAG(bool, head_sketch, true,
          "Split the head, for a sketch of it, where few logits are asked for "
          "(--top_k).");
ABSL_FLAG(int, threads, 0,
          "Threads to compute with; 0 takes all this process may use.");
ABSL_FLAG(bool, limits, true,
          "Measure what the machine can do at most before, and again after.");
ABSL_FLAG(bool, profile, false,
          "Tell for each case which operations its time went to.");
ABSL_FLAG(bool, json, false, "Print one JSON object instead of a table.");

namespace onegrid::inference {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::json;

// Of a text, at most.
constexpr size_t kTextBytes = 1 << 20;

absl::StatusOr<std::vector<int>> Numbers(const char* flag,
                                         const std::vector<std::string>& list,
                                         int least) {
  std::vector<int> numbers;
  for (const std::string& word : list) {
    int number = 0;
    if (!absl::SimpleAtoi(word, &number) || number < least) {
      return common::MakeError(
          absl::StatusCode::kInvalidArgument, "INVALID_FLAG",
          absl::StrCat("--", flag, " has \"", word,
                       "\", expected whole numbers of at least ", least),
          {{"flag", flag}});
    }
    numbers.push_back(number);
  }
  return numbers;
}

// For each depth the prompts, then the generations.
absl::StatusOr<std::vector<BenchCase>> CasesFromFlags() {
  ASSIGN_OR_RETURN(const std::vector<int> prompts,
                   Numbers("prompt", absl::GetFlag(FLAGS_prompt), 0));
  ASSIGN_OR_RETURN(const std::vector<int> generations,
                   Numbers("generate", absl::GetFlag(FLAGS_generate), 0));
  ASSIGN_OR_RETURN(const std::vector<int> depths,
                   Numbers("depth", absl::GetFlag(FLAGS_depth), 0));
  ASSIGN_OR_RETURN(const std::vector<int> batches,
                   Numbers("batch", absl::GetFlag(FLAGS_batch), 1));
  ASSIGN_OR_RETURN(const std::vector<int> tops,
                   Numbers("top_k", absl::GetFlag(FLAGS_top_k), 0));
  std::vector<BenchCase> cases;
  for (const int depth : depths) {
    for (const int tokens : prompts) {
      if (tokens == 0) continue;
      cases.push_back({BenchCase::Kind::kPrompt, tokens, depth, 1});
    }
    for (const int tokens : generations) {
      if (tokens == 0) continue;
      for (const int batch : batches) {
        for (const int top : tops) {
          cases.push_back(
              {BenchCase::Kind::kGenerate, tokens, depth, batch, top});
        }
      }
    }
  }
  if (cases.empty()) return absl::InvalidArgumentError("no case to run");
  return cases;
}

absl::StatusOr<Numerics> ChosenNumerics() {
  ServedModelOptions served;
  served.activations = absl::GetFlag(FLAGS_activations);
  served.kv_cache = absl::GetFlag(FLAGS_kv_cache);
  served.isa = absl::GetFlag(FLAGS_isa);
  std::vector<std::string> degraded;
  return ChooseNumerics(served, &degraded);
}

// Just large enough for the cases, and one sequence more.
absl::StatusOr<std::unique_ptr<Engine>> MakeEngine(
    const GemmaWeights& weights, const Numerics& numerics,
    const std::vector<BenchCase>& cases, kernels::ThreadPool& pool) {
  EngineOptions options;
  options.numerics = numerics;
  options.max_sequences = 1;
  options.max_context = 1;
  options.max_step_tokens = absl::GetFlag(FLAGS_step_tokens);
  for (const BenchCase& bench : cases) {
    options.max_sequences =
        std::max(options.max_sequences, bench.sequences + 1);
    options.max_context =
        std::max(options.max_context, bench.depth + bench.tokens);
  }
  return Engine::Create(weights, options, pool);
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle]
                                : (values[middle - 1] + values[middle]) / 2;
}

// Seconds by operation, largest first.
std::vector<std::pair<std::string, double>> SortedOps(
    const OpProfile& profile) {
  std::vector<std::pair<std::string, double>> ops;
  for (size_t i = 0; i < kOps; ++i) {
    const Op op = static_cast<Op>(i);
    ops.emplace_back(OpName(op), profile.seconds(op));
  }
  std::stable_sort(ops.begin(), ops.end(), [](const auto& a, const auto& b) {
    return a.second > b.second;
  });
  return ops;
}

json LimitsJson(const cpu::MachineLimits& limits) {
  return {{"read_gb_per_s", limits.read_gb_per_s},
          {"int8_gops", limits.int8_gops}};
}

// One run of the program.
class Bench {
 public:
  explicit Bench(int threads) : pool_(threads) {}

  absl::Status Run(const common::ThreadCount& threads);

 private:
  absl::Status Load();
  cpu::MachineLimits Limits();
  absl::Status RunCase(const BenchCase& bench);
  void Describe(const common::ThreadCount& threads);

  kernels::ThreadPool pool_;
  std::vector<BenchCase> cases_;
  std::unique_ptr<model::GgufFile> file_;
  std::unique_ptr<GemmaWeights> weights_;
  std::unique_ptr<Engine> engine_;
  std::vector<int32_t> text_;
  cpu::MachineLimits limits_;
  json report_;
};

absl::Status Bench::Load() {
  const Clock::time_point start = Clock::now();
  ASSIGN_OR_RETURN(file_, model::GgufFile::Open(absl::GetFlag(FLAGS_model)));
  ASSIGN_OR_RETURN(const Numerics numerics, ChosenNumerics());
  const bool few_logits =
      std::any_of(cases_.begin(), cases_.end(),
                  [](const BenchCase& bench) { return bench.top_k > 0; });
  ASSIGN_OR_RETURN(
      GemmaWeights weights,
      LoadGemmaWeights(*file_, pool_,
                       few_logits && absl::GetFlag(FLAGS_head_sketch)
                           ? HeadStorageFor(numerics)
                           : cpu::PackedLinear::Storage::kWhole));
  weights_ = std::make_unique<GemmaWeights>(std::move(weights));
  ASSIGN_OR_RETURN(engine_, MakeEngine(*weights_, numerics, cases_, pool_));
  if (const std::string path = absl::GetFlag(FLAGS_text); !path.empty()) {
    ASSIGN_OR_RETURN(const std::string text, common::ReadFile(path));
    ASSIGN_OR_RETURN(const auto tokenizer, model::Tokenizer::FromGguf(*file_));
    text_ = tokenizer->Encode(absl::string_view(text).substr(0, kTextBytes),
                              /*add_bos=*/true, /*parse_control=*/false);
  }
  report_["load_seconds"] =
      std::chrono::duration<double>(Clock::now() - start).count();
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  report_["load_peak_bytes"] = int64_t{usage.ru_maxrss} * 1024;
  for (const BenchCase& bench : cases_) {
    RETURN_IF_ERROR(CheckBenchCase(bench, *engine_));
  }
  return absl::OkStatus();
}

void Bench::Describe(const common::ThreadCount& threads) {
  const Numerics& numerics = engine_->options().numerics;
  report_["model"] = absl::GetFlag(FLAGS_model);
  report_["weight_bytes"] = weights_->bytes();
  report_["isa"] = kernels::IsaName(numerics.isa);
  report_["activations"] =
      numerics.activations == Precision::kInt8 ? "int8" : "f32";
  report_["kv_cache"] = PrecisionName(numerics.kv_cache);
  report_["threads"] = threads.threads;
  report_["thread_reason"] = threads.reason;
  if (absl::GetFlag(FLAGS_json)) return;
  std::printf(
      "%s: %.1f MB of weights, loaded in %.2f s, at most %.1f MB held\n",
      absl::GetFlag(FLAGS_model).c_str(),
      1e-6 * static_cast<double>(weights_->bytes()),
      report_["load_seconds"].get<double>(),
      1e-6 * report_["load_peak_bytes"].get<double>());
  std::printf("%s, %s activations, %s KV, %d threads (%s)\n",
              kernels::IsaName(numerics.isa),
              report_["activations"].get<std::string>().c_str(),
              report_["kv_cache"].get<std::string>().c_str(), threads.threads,
              threads.reason.c_str());
  if (absl::GetFlag(FLAGS_limits)) {
    std::printf("machine: reads %.1f GB/s, %.0f GOPS of int8\n",
                limits_.read_gb_per_s, limits_.int8_gops);
  }
  std::printf("\n%-22s %10s %10s %10s %9s %8s %6s %8s %6s\n", "case",
              "tokens/s", "least", "most", "MB/token", "GB/s", "share", "GOPS",
              "share");
}

absl::Status Bench::RunCase(const BenchCase& bench) {
  OpProfile profile;
  ASSIGN_OR_RETURN(
      const BenchResult result,
      RunBenchCase(bench, text_, absl::GetFlag(FLAGS_repetitions), *engine_,
                   absl::GetFlag(FLAGS_profile) ? &profile : nullptr));
  const std::vector<double>& speeds = result.speeds;
  const BenchCost cost = CostOf(bench, *engine_, *weights_, result.head_bytes);
  const double median = Median(speeds);
  const auto [least, most] = std::minmax_element(speeds.begin(), speeds.end());
  const double gb = 1e-9 * median * cost.bytes;
  const double gops = 1e-9 * median * cost.ops;
  json row = {{"case", BenchCaseName(bench)},
              {"tokens", bench.tokens},
              {"depth", bench.depth},
              {"sequences", bench.sequences},
              {"top_k", bench.top_k},
              {"generate", bench.kind == BenchCase::Kind::kGenerate},
              {"tokens_per_second", speeds},
              {"median", median},
              {"bytes_per_token", cost.bytes},
              {"ops_per_token", cost.ops},
              {"gb_per_s", gb},
              {"gops", gops}};
  std::string read_share = "-", ops_share = "-";
  if (absl::GetFlag(FLAGS_limits)) {
    row["share_of_read"] = gb / limits_.read_gb_per_s;
    row["share_of_int8"] = gops / limits_.int8_gops;
    read_share = absl::StrFormat("%.0f%%", 100 * gb / limits_.read_gb_per_s);
    ops_share = absl::StrFormat("%.0f%%", 100 * gops / limits_.int8_gops);
  }
  if (absl::GetFlag(FLAGS_profile)) {
    for (const auto& [name, seconds] : SortedOps(profile)) {
      row["profile_seconds"][name] = seconds;
    }
  }
  report_["cases"].push_back(std::move(row));
  if (absl::GetFlag(FLAGS_json)) return absl::OkStatus();
  std::printf("%-22s %10.1f %10.1f %10.1f %9.2f %8.1f %6s %8.0f %6s\n",
              BenchCaseName(bench).c_str(), median, *least, *most,
              1e-6 * cost.bytes, gb, read_share.c_str(), gops,
              ops_share.c_str());
  if (absl::GetFlag(FLAGS_profile)) {
    for (const auto& [name, seconds] : SortedOps(profile)) {
      std::printf("    %-18s %6.1f %%\n", name.c_str(),
                  100 * seconds / profile.total());
    }
  }
  std::fflush(stdout);
  return absl::OkStatus();
}

cpu::MachineLimits Bench::Limits() {
  // What a step of few tokens reads.
  return cpu::MeasureMachineLimits(
      pool_, weights_->body_bytes() + weights_->head().bytes(),
      engine_->options().numerics.isa);
}

absl::Status Bench::Run(const common::ThreadCount& threads) {
  ASSIGN_OR_RETURN(cases_, CasesFromFlags());
  RETURN_IF_ERROR(Load());
  const bool limits = absl::GetFlag(FLAGS_limits);
  if (limits) {
    limits_ = Limits();
    report_["limits"] = LimitsJson(limits_);
  }
  Describe(threads);
  for (const BenchCase& bench : cases_) RETURN_IF_ERROR(RunCase(bench));
  if (limits) {
    const cpu::MachineLimits after = Limits();
    report_["limits_after"] = LimitsJson(after);
    if (!absl::GetFlag(FLAGS_json)) {
      std::printf("\nmachine afterwards: reads %.1f GB/s, %.0f GOPS of int8\n",
                  after.read_gb_per_s, after.int8_gops);
    }
  }
  if (absl::GetFlag(FLAGS_json)) std::printf("%s\n", report_.dump(2).c_str());
  return absl::OkStatus();
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "bench: %s\n", std::string(status.message()).c_str());
  return 1;
}

int Main() {
  if (absl::GetFlag(FLAGS_model).empty()) {
    return Fail(absl::InvalidArgumentError("name a --model"));
  }
  if (absl::GetFlag(FLAGS_repetitions) < 1) {
    return Fail(absl::InvalidArgumentError("--repetitions must be positive"));
  }
  const common::ThreadCount threads =
      common::ChooseThreadCount(absl::GetFlag(FLAGS_threads));
  const absl::Status status = Bench(threads.threads).Run(threads);
  return status.ok() ? 0 : Fail(status);
}

}  // namespace
}  // namespace onegrid::inference

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "Measures the inference engine in process, as llama-bench does.\n"
      "  bench --model=FILE.gguf [--prompt=512] [--generate=128]\n"
      "      [--depth=0,8192] [--batch=1,8] [--json]\n"
      "pp: prompt tokens a second; tg: generated tokens a second, over all\n"
      "sequences of the batch; d: tokens in the cache before. Shares are of\n"
      "what this machine reads and multiplies at most, measured first.");
  const std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  if (rest.size() > 1) {
    std::fprintf(stderr, "bench: unexpected argument %s\n", rest[1]);
    return 1;
  }
  return onegrid::inference::Main();
}
