#include "services/controller/base_model_service.h"

#include "services/common/error_info.h"

namespace onegrid::controller {

absl::StatusOr<v1::BaseModel> BaseModelService::CreateBaseModel(
    const v1::CreateBaseModelRequest& request) {
  CreateCall call;
  call.id = request.base_model_id();
  call.request_id = request.request_id();
  call.request = &request;
  call.is_job = true;
  call.kind = v1::IMPORT;
  return Create<v1::BaseModel>(
      *context_, call, [&](StoreTransaction&) -> absl::StatusOr<v1::BaseModel> {
        const v1::BaseModel& in = request.base_model();
        v1::BaseModel base;
        base.set_display_name(in.display_name());
        *base.mutable_source() = in.source();
        base.set_grid(in.grid() == v1::GRID_UNSPECIFIED ? v1::INT4_G32
                                                        : in.grid());
        if (base.grid() != v1::INT4_G32) {
          return InvalidField("grid", v1::Grid_Name(base.grid()), "INT4_G32");
        }
        if (!IsSha256(in.source().sha256())) {
          return InvalidField("source.sha256", in.source().sha256(),
                              "64 lower-case hex digits");
        }
        return base;
      });
}

absl::StatusOr<v1::BaseModel> BaseModelService::GetBaseModel(
    const v1::GetBaseModelRequest& request) {
  return Get<v1::BaseModel>(*context_, request.name());
}

absl::StatusOr<v1::ListBaseModelsResponse> BaseModelService::ListBaseModels(
    const v1::ListBaseModelsRequest& request) {
  v1::ListBaseModelsResponse response;
  ASSIGN_OR_RETURN(
      *response.mutable_next_page_token(),
      List<v1::BaseModel>(*context_, request.page_size(), request.page_token(),
                          [&] { return response.add_base_models(); }));
  return response;
}

}  // namespace onegrid::controller
