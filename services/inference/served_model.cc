#include "services/inference/served_model.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "kernels/quant/grid_blocks.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/common/log.h"
#include "services/common/version.h"
#include "services/model/chat_format.h"
#include "services/model/gguf_reader.h"
#include "services/model/utf8.h"

namespace onegrid::inference {
namespace {

absl::Status InvalidFlag(absl::string_view flag, absl::string_view value,
                         absl::string_view expected) {
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "INVALID_FLAG",
      absl::StrCat("--", flag, " is \"", value, "\", expected ", expected),
      {{"flag", std::string(flag)}});
}

absl::StatusOr<Precision> ParsePrecision(absl::string_view flag,
                                         absl::string_view value) {
  const bool is_cache = flag == "kv_cache";
  if (value == "int8") return Precision::kInt8;
  if (value == "f32") return Precision::kF32;
  if (value == "bf16" && is_cache) return Precision::kBf16;
  return InvalidFlag(flag, value,
                     is_cache ? "int8, bf16 or f32" : "int8 or f32");
}

absl::StatusOr<kernels::Isa> ParseIsa(absl::string_view value) {
  if (value == "auto") return kernels::BestIsa();
  for (const kernels::Isa isa : kernels::kAllIsas) {
    if (value == kernels::IsaName(isa)) return isa;
  }
  return InvalidFlag(
      "isa", value,
      "auto, amx_int8, avx512_vnni, avx2_vnni, avx2 or reference");
}

// "int4_g32"; "bf16" of what is on no grid.
std::string GridName(quant::GgmlType type) {
  if (type == quant::GgmlType::kBF16) return "bf16";
  return (*quant::GridOfBlocks(type))->name;
}

// "int4_g32 (Q4_0)".
std::string TypeAndGrid(quant::GgmlType type) {
  return absl::StrCat(GridName(type), " (", quant::TraitsOf(type)->name, ")");
}

std::string WeightFormat(const GemmaWeights& weights) {
  std::vector<std::string> linears;
  for (const auto& [type, count] : weights.linear_types) {
    linears.push_back(absl::StrCat(count, " ", TypeAndGrid(type)));
  }
  const std::string tables =
      weights.own_head
          ? absl::StrCat("embedding: ", TypeAndGrid(weights.embedding_type),
                         "; head: ", TypeAndGrid(weights.head_type))
          : absl::StrCat("embedding and head: ",
                         TypeAndGrid(weights.embedding_type));
  return absl::StrCat("linears: ", absl::StrJoin(linears, ", "), "; ", tables,
                      "; norms: F32");
}

// "int8 x int4", "f32 x dequantized int4", "f32 x bf16".
std::string KernelName(const Numerics& numerics, quant::GgmlType type) {
  const char* weights = "int4";
  switch (type) {
    case quant::GgmlType::kBF16:
      return "f32 x bf16";
    case quant::GgmlType::kQ8_0:
      weights = "int8";
      break;
    case quant::GgmlType::kQ2_0:
      weights = "int2";
      break;
    default:
      break;
  }
  return absl::StrCat(numerics.activations == Precision::kF32
                          ? "f32 x dequantized "
                          : "int8 x ",
                      weights);
}

// Which kernel runs which grid.
std::string KernelPath(const Numerics& numerics, const GemmaWeights& weights,
                       const Engine& engine) {
  std::vector<std::string> paths;
  for (const auto& [type, count] : weights.linear_types) {
    paths.push_back(
        absl::StrCat(GridName(type), ": ", KernelName(numerics, type)));
  }
  paths.push_back(
      absl::StrCat("head: ", KernelName(numerics, weights.head_type),
                   engine.can_sketch_head()
                       ? " after a sketch in int4 where few logits are wanted"
                       : ""));
  return absl::StrCat(
      "decode and prefill in groups of 32: ", absl::StrJoin(paths, ", "), "; ",
      kernels::IsaName(numerics.isa),
      kernels::UsesZenKernels(numerics.isa) ? " for AMD's processors" : "");
}

v1::ServerInfo MakeInfo(const ServedModelOptions& options,
                        const Numerics& numerics, const GemmaWeights& weights,
                        const Engine& engine, int64_t kv_limit) {
  v1::ServerInfo info;
  info.set_architecture(model::ArchitectureName(weights.config.family));
  info.set_weight_format(WeightFormat(weights));
  info.set_kv_cache(
      numerics.kv_cache == Precision::kInt8
          ? "int8 (K Hadamard-rotated, per token and head; V groups of 32)"
          : PrecisionName(numerics.kv_cache));
  info.set_activations(
      numerics.activations == Precision::kInt8
          ? "int8 groups of 32 (int16 for q, k, v and the head)"
          : "f32");
  info.set_isa(kernels::IsaName(numerics.isa));
  info.set_kernel_path(KernelPath(numerics, weights, engine));
  info.set_speculation(
      engine.options().max_rollback == 0
          ? "off"
          : absl::StrCat(
                "prompt lookup, up to ", engine.options().max_rollback,
                " tokens",
                options.prompt_lookup == "auto" ? " where it pays" : ""));
  info.set_threads(options.threads.threads);
  info.set_thread_reason(options.threads.reason);
  info.set_max_sequences(engine.options().max_sequences);
  info.set_max_context(engine.options().max_context);
  info.set_kv_bytes(kv_limit);
  info.set_prefix_cache_bytes(engine.options().prefix_bytes);
  info.set_vocab_size(static_cast<int32_t>(engine.config().vocab_size));
  info.set_version(common::kVersion);
  return info;
}

// Refuses a budget that holds no sequence, and tells of one that does not hold
// the longest there may be.
absl::Status CheckBudget(const ServedModelOptions& options,
                         const Engine& engine) {
  const int64_t budget = options.kv_budget_bytes;
  const int64_t least = engine.sequence_bytes_max(1);
  const int64_t most = engine.sequence_bytes_max(engine.options().max_context);
  if (budget == 0 || budget >= most) return absl::OkStatus();
  if (budget < least) {
    return InvalidFlag("kv_budget", absl::StrCat(budget),
                       absl::StrCat("auto or at least ", least,
                                    " bytes, which a token takes"));
  }
  common::LogWarning("kv_budget_below_context",
                     {{"kv_budget", budget},
                      {"max_context", engine.options().max_context},
                      {"kv_bytes_of_context", most}});
  return absl::OkStatus();
}

absl::StatusOr<std::string> CheckDigest(const model::GgufFile& file,
                                        const ServedModelOptions& options) {
  std::vector<std::string> digests;
  for (const std::string& path : file.file_paths()) {
    ASSIGN_OR_RETURN(digests.emplace_back(), common::Sha256OfFile(path));
  }
  const std::string sha256 = common::Sha256OfModel(digests);
  const std::string& wanted = options.artifact_sha256;
  if (wanted.empty() || absl::AsciiStrToLower(wanted) == sha256) return sha256;
  return common::MakeError(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
                           absl::StrCat(options.model_path, " has SHA-256 ",
                                        sha256, ", expected ", wanted),
                           {{"expected", wanted}, {"found", sha256}});
}

}  // namespace

absl::StatusOr<Numerics> ChooseNumerics(const ServedModelOptions& options,
                                        std::vector<std::string>* degraded) {
  Numerics numerics;
  ASSIGN_OR_RETURN(numerics.activations,
                   ParsePrecision("activations", options.activations));
  ASSIGN_OR_RETURN(numerics.kv_cache,
                   ParsePrecision("kv_cache", options.kv_cache));
  ASSIGN_OR_RETURN(numerics.isa, ParseIsa(options.isa));
  if (kernels::IsaSupported(numerics.isa)) return numerics;
  const std::string problem =
      absl::StrCat("this processor lacks ", options.isa, ", its best is ",
                   kernels::IsaName(kernels::BestIsa()));
  if (!options.allow_degraded) {
    return common::MakeError(absl::StatusCode::kFailedPrecondition,
                             "ISA_NOT_SUPPORTED", problem,
                             {{"isa", options.isa}});
  }
  degraded->push_back(problem);
  numerics.isa = kernels::BestIsa();
  return numerics;
}

absl::Status DescribeChat(const model::GgufFile& file,
                          const model::GemmaConfig& config,
                          absl::string_view chat_format, v1::ServerInfo* info) {
  std::optional<model::ChatFormat> format = model::DefaultChatFormat(config);
  constexpr char kKey[] = "tokenizer.chat_template";
  if (file.Has(kKey)) {
    ASSIGN_OR_RETURN(const std::string jinja, file.GetString(kKey));
    format = model::FormatOfTemplate(jinja);
    info->set_chat_template_sha256(common::Sha256Of(jinja));
  }
  if (chat_format != "auto") {
    format = model::ChatFormatNamed(chat_format);
    if (!format.has_value()) {
      return InvalidFlag(
          "chat_format", chat_format,
          absl::StrCat("auto or one of ", model::ChatFormatNames()));
    }
  }
  if (format.has_value()) {
    info->set_chat_format(model::RulesOf(*format).name);
  }
  return absl::OkStatus();
}

std::string ModelName(const model::GgufFile& file, const std::string& path) {
  constexpr char kKey[] = "general.name";
  if (file.Has(kKey)) {
    const auto name = file.GetString(kKey);
    if (name.ok() && !name->empty() && model::IsValidUtf8(*name)) return *name;
  }
  const absl::string_view base =
      absl::string_view(path).substr(path.find_last_of('/') + 1);
  return std::string(absl::StripSuffix(base, ".gguf"));
}

absl::StatusOr<Drafting> ParseDrafting(absl::string_view value) {
  if (value == "auto") return Drafting::kAuto;
  if (value == "always") return Drafting::kAlways;
  if (value == "off") return Drafting::kOff;
  return InvalidFlag("prompt_lookup", value, "auto, always or off");
}

absl::Status LoadAdapters(const std::vector<std::string>& adapters,
                          AdapterRegistry& registry) {
  for (const std::string& adapter : adapters) {
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(adapter, absl::MaxSplits('=', 1));
    if (parts.second.empty()) {
      return InvalidFlag("adapters", adapter, "NAME=PATH");
    }
    RETURN_IF_ERROR(registry.Load(parts.first, parts.second, "").status());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ServedModel>> ServedModel::Load(
    const ServedModelOptions& options) {
  if (options.model_path.empty()) {
    return InvalidFlag("model", "", "a GGUF file");
  }
  if (options.max_shared_step_tokens < 1) {
    return InvalidFlag("max_shared_step_tokens",
                       absl::StrCat(options.max_shared_step_tokens),
                       "at least 1");
  }
  SchedulerOptions scheduler;
  scheduler.max_queue = options.max_queue;
  scheduler.max_queue_delay = options.max_queue_delay;
  scheduler.calm_queue = options.calm_queue;
  scheduler.kv_limit = options.kv_budget_bytes;
  scheduler.step.max_shared_tokens = options.max_shared_step_tokens;
  ASSIGN_OR_RETURN(scheduler.step.drafting,
                   ParseDrafting(options.prompt_lookup));
  const absl::Time start = absl::Now();
  std::vector<std::string> degraded;
  ASSIGN_OR_RETURN(const Numerics numerics, ChooseNumerics(options, &degraded));
  ASSIGN_OR_RETURN(auto file, model::GgufFile::Open(options.model_path));
  ASSIGN_OR_RETURN(const std::string sha256, CheckDigest(*file, options));
  ASSIGN_OR_RETURN(const model::GemmaConfig config,
                   model::ConfigFromGguf(*file));
  v1::ServerInfo chat;
  RETURN_IF_ERROR(DescribeChat(*file, config, options.chat_format, &chat));

  std::unique_ptr<ServedModel> served(new ServedModel(options.threads.threads));
  ASSIGN_OR_RETURN(GemmaWeights weights,
                   LoadGemmaWeights(*file, served->pool_,
                                    options.head_sketch
                                        ? HeadStorageFor(numerics)
                                        : cpu::PackedLinear::Storage::kWhole));
  served->weights_ = std::make_unique<GemmaWeights>(std::move(weights));
  // The digest is that of what was loaded.
  RETURN_IF_ERROR(file->CheckUnchanged());
  ASSIGN_OR_RETURN(served->tokenizer_, model::Tokenizer::FromGguf(*file));
  if (served->tokenizer_->vocab_size() > served->weights_->config.vocab_size) {
    return common::MakeError(
        absl::StatusCode::kDataLoss, "CORRUPT_FILE",
        absl::StrCat(options.model_path, ": the tokenizer has ",
                     served->tokenizer_->vocab_size(),
                     " tokens, the embedding only ",
                     served->weights_->config.vocab_size, " rows"));
  }
  served->name_ = options.model_name.empty()
                      ? ModelName(*file, options.model_path)
                      : options.model_name;
  if (served->weights_->per_layer) served->file_ = std::move(file);
  EngineOptions engine;
  engine.numerics = numerics;
  engine.max_sequences = options.max_sequences;
  engine.max_context = static_cast<int>(std::min<int64_t>(
      options.max_context, served->weights_->config.context_length));
  engine.max_step_tokens = options.max_step_tokens;
  engine.prefix_bytes = options.prefix_cache_bytes;
  engine.max_rollback =
      scheduler.step.drafting == Drafting::kOff ? 0 : scheduler.step.max_draft;
  ASSIGN_OR_RETURN(served->engine_,
                   Engine::Create(*served->weights_, engine, served->pool_));

  served->adapters_ = std::make_unique<AdapterRegistry>(
      options.adapter_registry, served->weights_->config, served->pool_);
  RETURN_IF_ERROR(LoadAdapters(options.adapters, *served->adapters_));
  RETURN_IF_ERROR(CheckBudget(options, *served->engine_));
  served->scheduler_ =
      std::make_unique<Scheduler>(*served->engine_, served->pool_, scheduler);

  v1::ServerInfo info =
      MakeInfo(options, numerics, *served->weights_, *served->engine_,
               served->scheduler_->kv_limit());
  // What callers may ask for is what one request alone can have.
  info.set_max_context(static_cast<int32_t>(std::min<int64_t>(
      info.max_context(), served->scheduler_->most_tokens())));
  info.MergeFrom(chat);
  info.set_artifact_sha256(sha256);
  for (std::string& line : degraded) info.add_degraded(std::move(line));
  common::LogInfo(
      "model_loaded",
      {{"name", served->name_},
       {"sha256", sha256},
       {"isa", info.isa()},
       {"threads", info.threads()},
       {"thread_reason", info.thread_reason()},
       {"weight_format", info.weight_format()},
       {"activations", info.activations()},
       {"kv_cache", info.kv_cache()},
       {"speculation", info.speculation()},
       {"chat_format", info.chat_format()},
       {"weight_bytes", served->weights_->bytes()},
       {"kv_bytes_limit", info.kv_bytes()},
       {"prefix_cache_bytes", info.prefix_cache_bytes()},
       {"load_ms", absl::ToInt64Milliseconds(absl::Now() - start)}});
  served->service_ = std::make_unique<GenerationService>(
      *served->tokenizer_, *served->scheduler_, *served->adapters_,
      std::move(info));
  return served;
}

}  // namespace onegrid::inference
