#include "services/inference/open_inference_service.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "services/common/error_info.h"

namespace onegrid::inference {
namespace {

uint64_t Nanoseconds(const google::protobuf::Duration& duration) {
  return duration.seconds() * 1'000'000'000 + duration.nanos();
}

void Add(uint64_t ns, oip::StatisticDuration* duration) {
  duration->set_count(duration->count() + 1);
  duration->set_ns(duration->ns() + ns);
}

CallContext WithTimeout(CallContext context, absl::Duration timeout) {
  context.deadline = std::min(context.deadline, absl::Now() + timeout);
  return context;
}

}  // namespace

absl::Status OpenInferenceService::CheckModel(absl::string_view name,
                                              absl::string_view version) const {
  return inference::CheckModel(name, version, model_name_);
}

absl::Status OpenInferenceService::Generate(
    const InferCall& call, const CallContext& context, bool parts,
    absl::FunctionRef<bool(const InferPart&)> write) {
  const absl::Time start = absl::Now();
  InferPart part;
  if (call.echo) part.text = call.request.text();
  v1::Finished finished;
  const ModelSlot::Handle model = model_.Get();
  absl::Status status = model->service().Generate(
      call.request, WithTimeout(context, call.timeout),
      [&](const v1::GenerateResponse& response) {
        if (response.has_started()) return true;
        if (response.has_finished()) {
          finished = response.finished();
          part.finished = &finished;
          return write(part);
        }
        Append(response.delta(), &part);
        if (!parts || part.text.empty()) return true;
        const bool written = write(part);
        part = InferPart();
        return written;
      });
  Count(start, status.ok() ? &finished : nullptr);
  return status;
}

absl::StatusOr<oip::ModelInferResponse> OpenInferenceService::Infer(
    const oip::ModelInferRequest& request, const CallContext& context) {
  const absl::Time start = absl::Now();
  auto call = ReadInferRequest(request, model_name_);
  if (call.ok() && call->stream) {
    call = WrongTensor("input \"stream\"",
                       "false: streams are ModelStreamInfer's", "true");
  }
  if (!call.ok()) {
    Count(start, nullptr);
    return call.status();
  }
  oip::ModelInferResponse response;
  RETURN_IF_ERROR(
      Generate(*call, context, /*parts=*/false, [&](const InferPart& part) {
        response = MakeInferResponse(*call, model_name_, part);
        return true;
      }));
  return response;
}

absl::Status OpenInferenceService::StreamCall(const InferCall& call,
                                              const CallContext& context,
                                              Write write) {
  RETURN_IF_ERROR(Generate(
      call, context, /*parts=*/call.stream, [&](const InferPart& part) {
        oip::ModelStreamInferResponse response;
        *response.mutable_infer_response() =
            MakeInferResponse(call, model_name_, part);
        SetFinal(part.finished != nullptr && !call.empty_final_response,
                 response.mutable_infer_response());
        return write(response);
      }));
  if (!call.empty_final_response) return absl::OkStatus();
  InferCall nothing;
  nothing.id = call.id;
  oip::ModelStreamInferResponse last;
  *last.mutable_infer_response() =
      MakeInferResponse(nothing, model_name_, InferPart());
  SetFinal(true, last.mutable_infer_response());
  write(last);
  return absl::OkStatus();
}

absl::Status OpenInferenceService::StreamInfer(
    const oip::ModelInferRequest& request, const CallContext& context,
    Write write) {
  const absl::Time start = absl::Now();
  const auto call = ReadInferRequest(request, model_name_);
  absl::Status status = call.status();
  if (call.ok()) {
    status = StreamCall(*call, context, write);
  } else {
    Count(start, nullptr);
  }
  if (!status.ok()) {
    write(MakeStreamError(status, model_name_, request.id()));
  }
  return status;
}

void OpenInferenceService::Count(absl::Time start,
                                 const v1::Finished* finished) {
  const absl::Time now = absl::Now();
  const uint64_t ns = absl::ToInt64Nanoseconds(now - start);
  absl::MutexLock lock(&mu_);
  auto& stats = *statistics_.mutable_inference_stats();
  if (finished == nullptr) {
    Add(ns, stats.mutable_fail());
    return;
  }
  Add(ns, stats.mutable_success());
  Add(Nanoseconds(finished->queue_time()), stats.mutable_queue());
  Add(Nanoseconds(finished->prefill_time()) +
          Nanoseconds(finished->decode_time()),
      stats.mutable_compute_infer());
  statistics_.set_last_inference(absl::ToUnixMillis(now));
  statistics_.set_inference_count(statistics_.inference_count() + 1);
  statistics_.set_execution_count(statistics_.execution_count() + 1);
}

absl::StatusOr<oip::ModelStatisticsResponse> OpenInferenceService::Statistics(
    const oip::ModelStatisticsRequest& request) const {
  if (!request.name().empty()) {
    RETURN_IF_ERROR(CheckModel(request.name(), request.version()));
  }
  oip::ModelStatisticsResponse response;
  absl::MutexLock lock(&mu_);
  oip::ModelStatistics& model = *response.add_model_stats();
  model = statistics_;
  model.set_name(model_name_);
  model.set_version(std::string(kModelVersion));
  return response;
}

}  // namespace onegrid::inference
