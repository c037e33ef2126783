#include "services/controller/resource.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/util/time_util.h"
#include "proto/onegrid/v1/base_model.pb.h"
#include "proto/onegrid/v1/dataset.pb.h"
#include "proto/onegrid/v1/deployment.pb.h"
#include "proto/onegrid/v1/evaluation.pb.h"
#include "proto/onegrid/v1/export.pb.h"
#include "proto/onegrid/v1/pipeline.pb.h"
#include "proto/onegrid/v1/tuning.pb.h"
#include "services/common/error_info.h"
#include "services/common/files.h"

namespace onegrid::controller {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

struct Collection {
  const char* name;
  const Message* prototype;
};

const std::vector<Collection>& Collections() {
  static const auto& collections = *new std::vector<Collection>{
      {"baseModels", &v1::BaseModel::default_instance()},
      {"datasets", &v1::Dataset::default_instance()},
      {"deployments", &v1::Deployment::default_instance()},
      {"evaluations", &v1::Evaluation::default_instance()},
      {"exports", &v1::Export::default_instance()},
      {"pipelineRuns", &v1::PipelineRun::default_instance()},
      {"tuningJobs", &v1::TuningJob::default_instance()},
  };
  return collections;
}

const FieldDescriptor* Field(const Message& message, absl::string_view name) {
  return message.GetDescriptor()->FindFieldByName(std::string(name));
}

void CopyToField(Message* resource, absl::string_view name,
                 const Message& value) {
  const FieldDescriptor* field = Field(*resource, name);
  if (field == nullptr) return;
  resource->GetReflection()->MutableMessage(resource, field)->CopyFrom(value);
}

template <typename T>
T MessageField(const Message& resource, absl::string_view name) {
  T value;
  const FieldDescriptor* field = Field(resource, name);
  if (field != nullptr) {
    value.CopyFrom(resource.GetReflection()->GetMessage(resource, field));
  }
  return value;
}

void CollectRefs(const Message& message, std::vector<v1::ArtifactRef>* refs) {
  if (message.GetDescriptor() == v1::ArtifactRef::descriptor()) {
    const auto& ref = static_cast<const v1::ArtifactRef&>(message);
    if (!ref.sha256().empty()) refs->push_back(ref);
    return;
  }
  std::vector<const FieldDescriptor*> fields;
  const google::protobuf::Reflection* reflection = message.GetReflection();
  reflection->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (!field->is_repeated()) {
      CollectRefs(reflection->GetMessage(message, field), refs);
      continue;
    }
    for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
      CollectRefs(reflection->GetRepeatedMessage(message, field, i), refs);
    }
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Message>> NewResource(absl::string_view name) {
  const absl::string_view collection = name.substr(0, name.find('/'));
  for (const Collection& candidate : Collections()) {
    if (candidate.name == collection && collection.size() + 1 < name.size()) {
      return std::unique_ptr<Message>(candidate.prototype->New());
    }
  }
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "INVALID_RESOURCE_NAME",
      absl::StrCat("'", name, "' is not the name of a resource"),
      {{"name", std::string(name)}});
}

std::string CollectionOf(const Message& resource) {
  for (const Collection& candidate : Collections()) {
    if (candidate.prototype->GetDescriptor() == resource.GetDescriptor()) {
      return candidate.name;
    }
  }
  return "";
}

std::string NameOf(const Message& resource) {
  const FieldDescriptor* field = Field(resource, "name");
  return resource.GetReflection()->GetString(resource, field);
}

int StateOf(const Message& resource) {
  const FieldDescriptor* field = Field(resource, "state");
  if (field == nullptr) return 0;
  return resource.GetReflection()->GetEnumValue(resource, field);
}

v1::JobState JobStateOf(const Message& resource) {
  return static_cast<v1::JobState>(StateOf(resource));
}

void SetState(Message* resource, int state) {
  const FieldDescriptor* field = Field(*resource, "state");
  if (field == nullptr) return;
  resource->GetReflection()->SetEnumValue(resource, field, state);
}

void SetTime(Message* resource, absl::string_view field, absl::Time time) {
  CopyToField(resource, field, ToTimestamp(time));
}

void SetInt(Message* resource, absl::string_view name, int value) {
  const FieldDescriptor* field = Field(*resource, name);
  if (field == nullptr) return;
  resource->GetReflection()->SetInt32(resource, field, value);
}

void SetError(Message* resource, const v1::JobError& error) {
  CopyToField(resource, "error", error);
}

void ClearError(Message* resource) {
  const FieldDescriptor* field = Field(*resource, "error");
  if (field != nullptr) resource->GetReflection()->ClearField(resource, field);
}

void SetProgress(Message* resource, const v1::Progress& progress) {
  CopyToField(resource, "progress", progress);
}

void SetEtag(Message* resource) {
  const FieldDescriptor* field = Field(*resource, "etag");
  resource->GetReflection()->ClearField(resource, field);
  const std::string digest = DigestOf(*resource).substr(0, 16);
  resource->GetReflection()->SetString(resource, field, digest);
}

v1::Progress ProgressOf(const Message& resource) {
  return MessageField<v1::Progress>(resource, "progress");
}

v1::JobError ErrorOf(const Message& resource) {
  return MessageField<v1::JobError>(resource, "error");
}

std::vector<v1::ArtifactRef> ArtifactRefsOf(const Message& message) {
  std::vector<v1::ArtifactRef> refs;
  CollectRefs(message, &refs);
  return refs;
}

std::string DigestOf(const Message& message) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    // Maps would otherwise be written in any order.
    coded.SetSerializationDeterministic(true);
    message.SerializeToCodedStream(&coded);
  }
  return common::Sha256Of(bytes);
}

google::protobuf::Timestamp ToTimestamp(absl::Time time) {
  return google::protobuf::util::TimeUtil::MicrosecondsToTimestamp(
      absl::ToUnixMicros(time));
}

}  // namespace onegrid::controller
