// Commands that start work and wait for it.
#ifndef CLIENT_CLI_JOBS_H_
#define CLIENT_CLI_JOBS_H_

#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cli/api.h"
#include "proto/onegrid/v1/common.pb.h"

namespace onegrid::cli {

// Where progress goes. `out` must outlive every call it is given to.
struct ProgressSink {
  std::ostream* out;
  bool terminal;
};

// Uploads a file to the artifact store, unless it is there already.
absl::StatusOr<v1::ArtifactRef> Upload(Api& api, const std::string& path,
                                       const std::string& media_type,
                                       const ProgressSink& sink);

// Uploads the files of the LoRA adapter at `path`, a PEFT folder or a GGUF.
// Errors of common::FindAdapterFiles too.
absl::StatusOr<v1::InitialAdapter> UploadAdapter(Api& api,
                                                 const std::string& path,
                                                 const ProgressSink& sink);

// Downloads a blob to `path`, checked against its digest and renamed into
// place when complete.
absl::Status Download(Api& api, const v1::ArtifactRef& ref,
                      const std::string& path);

// Prints events of a resource (of all, when empty) until it ends, or until
// the connection is lost for a minute; takes up again where it left off.
absl::Status Watch(Api& api, const std::string& name, bool json,
                   const ProgressSink& sink);

// Watches, then returns the resource's error as a status, OK if it succeeded.
absl::Status WaitFor(Api& api, const std::string& name,
                     const ProgressSink& sink);

// Uploads and imports a checkpoint as baseModels/{id}. With `reuse`, an
// existing base model of that id and the same file is waited for instead.
absl::StatusOr<v1::BaseModel> ImportModel(Api& api, const std::string& id,
                                          const std::string& path, bool reuse,
                                          const ProgressSink& sink);

struct DatasetFiles {
  std::string train;
  std::string validation;
  std::string test;
  // Not given: each file's format is that of its first line.
  v1::DatasetFormat format = v1::DATASET_FORMAT_UNSPECIFIED;
  bool drop_invalid = false;
};

// One line per split: "train: 812 examples of MESSAGES, 3 lines dropped, the
// first line 17: the last turn is the user's: it has no answer".
std::string DescribeSplits(const v1::Dataset& dataset);

// Uploads and registers datasets/{id}; `reuse` as above.
absl::StatusOr<v1::Dataset> CreateDataset(Api& api, const std::string& id,
                                          const DatasetFiles& files, bool reuse,
                                          const ProgressSink& sink);

// Where an export's files were put; empty for formats it has not.
struct ExportFiles {
  // Of shards: the first.
  std::string gguf;
  // A folder.
  std::string compressed_tensors;
  std::string adapter_gguf;
};

// Downloads every file of an export to out_dir/{format}/, made if missing.
absl::StatusOr<ExportFiles> DownloadExport(Api& api, const v1::Export& exported,
                                           const std::string& out_dir);

}  // namespace onegrid::cli

#endif  // CLIENT_CLI_JOBS_H_
