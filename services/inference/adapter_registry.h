// The LoRA adapters that a server has loaded, by name.
#ifndef SERVICES_INFERENCE_ADAPTER_REGISTRY_H_
#define SERVICES_INFERENCE_ADAPTER_REGISTRY_H_

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "kernels/base/thread_pool.h"
#include "services/inference/lora.h"
#include "services/model/gemma_config.h"

namespace onegrid::inference {

struct AdapterRegistryOptions {
  int max_adapters = 16;
  // What LoadBelow may read; empty: nothing.
  std::string folder;
};

// Whoever holds an adapter keeps it, also after Unload. Thread-safe.
class AdapterRegistry {
 public:
  using Handle = std::shared_ptr<const LoraAdapter>;

  // `pool` must outlive the registry.
  AdapterRegistry(AdapterRegistryOptions options, model::GemmaConfig config,
                  kernels::ThreadPool& pool);

  // Reads PEFT's folder or llama.cpp's GGUF at `path`. With the name and the
  // digest of a loaded one, that is the answer. `sha256`: what it has to be;
  // empty: anything.
  // InvalidArgument (INVALID_REQUEST): the name. AlreadyExists
  // (ADAPTER_EXISTS). ResourceExhausted (TOO_MANY_ADAPTERS). DataLoss
  // (DIGEST_MISMATCH). Aborted (FILE_CHANGED): a file changed meanwhile. Errors
  // of common::FindAdapterFiles, model::Adapter::Open and LoraAdapter::Create.
  absl::StatusOr<Handle> Load(const std::string& name, const std::string& path,
                              const std::string& sha256);

  // The same with a path below options.folder, whose own files may be links to
  // anywhere. PermissionDenied
  // (ADAPTERS_NOT_ALLOWED): there is no folder, or the path, links followed,
  // leads out of it.
  absl::StatusOr<Handle> LoadBelow(const std::string& name,
                                   const std::string& path,
                                   const std::string& sha256);

  // NotFound (ADAPTER_NOT_FOUND). PermissionDenied (ADAPTERS_NOT_ALLOWED):
  // there is no folder.
  absl::Status Unload(const std::string& name);

  // NotFound (ADAPTER_NOT_FOUND); null for an empty name.
  absl::StatusOr<Handle> Find(const std::string& name) const;

  int max_adapters() const { return options_.max_adapters; }

  // By name.
  std::vector<std::pair<std::string, Handle>> List() const;

 private:
  absl::Status CheckAllowed() const;
  // Of those loaded now: the one of this name if it has the digest, null if
  // there is room for another.
  absl::StatusOr<Handle> FindLoaded(const std::string& name,
                                    const std::string& sha256) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);

  const AdapterRegistryOptions options_;
  const model::GemmaConfig config_;
  kernels::ThreadPool& pool_;
  mutable absl::Mutex mu_;
  std::map<std::string, Handle> adapters_ ABSL_GUARDED_BY(mu_);
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_ADAPTER_REGISTRY_H_
