#include "services/controller/export_service.h"

#include "absl/strings/str_cat.h"
#include "proto/onegrid/v1/tuning.pb.h"
#include "services/common/error_info.h"
#include "services/controller/model_lookup.h"

namespace onegrid::controller {
namespace {

bool NeedsFoldedModel(int format) {
  return format == v1::GGUF || format == v1::COMPRESSED_TENSORS;
}

bool MakesModel(v1::TuningMode mode) { return mode != v1::QLORA; }

bool MakesAdapter(v1::TuningMode mode) {
  return mode == v1::QLORA || mode == v1::QLORA_FOLD || mode == v1::QLORA_QAT;
}

// The default: every format that the mode of tuning has a product for.
void AddDefaultFormats(const v1::TuningJob& job, v1::Export* made) {
  for (const v1::ExportFormat format :
       {v1::GGUF, v1::COMPRESSED_TENSORS, v1::LORA_GGUF, v1::PEFT}) {
    if (NeedsFoldedModel(format) ? MakesModel(job.mode())
                                 : MakesAdapter(job.mode())) {
      made->add_formats(format);
    }
  }
}

absl::Status CheckFormats(const v1::TuningJob& job, const v1::Export& made) {
  for (const int format : made.formats()) {
    if (!v1::ExportFormat_IsValid(format) ||
        format == v1::EXPORT_FORMAT_UNSPECIFIED) {
      return InvalidField("formats", absl::StrCat(format), "an ExportFormat");
    }
    const std::string name =
        v1::ExportFormat_Name(static_cast<v1::ExportFormat>(format));
    if (!NeedsFoldedModel(format) && !MakesAdapter(job.mode())) {
      return common::MakeError(
          absl::StatusCode::kFailedPrecondition, "NO_ADAPTER",
          absl::StrCat(name, " needs an adapter, and ", job.name(),
                       " has mode ", v1::TuningMode_Name(job.mode()),
                       ", which makes a model only"),
          {{"format", name}, {"tuning_job", job.name()}});
    }
    if (NeedsFoldedModel(format) && !MakesModel(job.mode())) {
      return common::MakeError(
          absl::StatusCode::kFailedPrecondition, "NOT_FOLDED",
          absl::StrCat(name, " needs a folded model, and ", job.name(),
                       " has mode QLORA, which makes an adapter only"),
          {{"format", name}, {"tuning_job", job.name()}});
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::Export> ExportService::CreateExport(
    const v1::CreateExportRequest& request, const std::string& parent) {
  CreateCall call;
  call.id = request.export_id();
  call.request_id = request.request_id();
  call.request = &request;
  call.parent = parent;
  call.is_job = true;
  call.kind = v1::EXPORT;
  return Create<v1::Export>(
      *context_, call,
      [&](StoreTransaction& transaction) -> absl::StatusOr<v1::Export> {
        const v1::Export& in = request.export_();
        ASSIGN_OR_RETURN(const v1::TuningJob job,
                         Load<v1::TuningJob>(transaction, in.tuning_job()));
        RETURN_IF_ERROR(CheckSucceeded(job));
        v1::Export made;
        made.set_tuning_job(in.tuning_job());
        if (in.max_shard_bytes() < 0) {
          return InvalidField("max_shard_bytes",
                              absl::StrCat(in.max_shard_bytes()), "0 or more");
        }
        made.set_max_shard_bytes(in.max_shard_bytes());
        *made.mutable_formats() = in.formats();
        if (made.formats().empty()) AddDefaultFormats(job, &made);
        RETURN_IF_ERROR(CheckFormats(job, made));
        return made;
      });
}

absl::StatusOr<v1::Export> ExportService::GetExport(
    const v1::GetExportRequest& request) {
  return Get<v1::Export>(*context_, request.name());
}

absl::StatusOr<v1::ListExportsResponse> ExportService::ListExports(
    const v1::ListExportsRequest& request) {
  v1::ListExportsResponse response;
  ASSIGN_OR_RETURN(
      *response.mutable_next_page_token(),
      List<v1::Export>(*context_, request.page_size(), request.page_token(),
                       [&] { return response.add_exports(); }));
  return response;
}

}  // namespace onegrid::controller
