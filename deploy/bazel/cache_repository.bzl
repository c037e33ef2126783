"""Repositories whose files deploy/dev/setup has put into the cache folder."""

def _cache_repository_impl(ctx):
    cache = ctx.os.environ.get("ONEGRID_CACHE", "")
    if not cache:
        cache = ctx.os.environ["HOME"] + "/.cache/onegrid"
    root = ctx.path(cache + "/" + ctx.attr.folder)
    ctx.symlink(ctx.attr.build_file, "BUILD")

    # Without the folder the repository still loads, so that targets which do
    # not use it build before setup has run.
    for entry in ctx.attr.entries:
        path = root.get_child(entry)
        if path.exists:
            ctx.symlink(path, entry)

cache_repository = repository_rule(
    implementation = _cache_repository_impl,
    attrs = {
        "build_file": attr.label(mandatory = True, allow_single_file = True),
        "entries": attr.string_list(mandatory = True),
        "folder": attr.string(mandatory = True),
    },
    doc = "Links `entries` of FOLDER in $ONEGRID_CACHE (~/.cache/onegrid).",
    environ = [
        "HOME",
        "ONEGRID_CACHE",
    ],
    local = True,
)
