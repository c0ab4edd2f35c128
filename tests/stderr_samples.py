"""What programs write to stderr when they cannot go on, and which words of it are the reason."""

from __future__ import annotations

SAMPLES: dict[str, tuple[str, str]] = {
    "node, a module is missing": (
        """node:internal/modules/cjs/loader:1228
  throw err;
  ^

Error: Cannot find module '/srv/index.js'
    at Module._resolveFilename (node:internal/modules/cjs/loader:1225:15)
    at Module._load (node:internal/modules/cjs/loader:1051:27) {
  code: 'MODULE_NOT_FOUND',
  requireStack: []
}

Node.js v22.1.0""",
        "Error: Cannot find module '/srv/index.js'",
    ),
    "node, the source is quoted": (
        """file:///srv/x.js:3
throw new Error("GITHUB_TOKEN is required");
      ^

Error: GITHUB_TOKEN is required
    at file:///srv/x.js:3:7
    at ModuleJob.run (node:internal/modules/esm/module_job:222:25)

Node.js v22.1.0""",
        "Error: GITHUB_TOKEN is required",
    ),
    "node, syntax": (
        """/srv/x.js:1
const = 3
      ^

SyntaxError: Unexpected token '='
    at wrapSafe (node:internal/modules/cjs/loader:1378:20)

Node.js v22.1.0""",
        "SyntaxError: Unexpected token '='",
    ),
    "node, an error with a code": (
        """TypeError [ERR_INVALID_ARG_TYPE]: The "path" argument must be of type string. Received undefined
    at Object.join (node:path:1268:7) {
  code: 'ERR_INVALID_ARG_TYPE'
}
Node.js v22.1.0""",
        'TypeError [ERR_INVALID_ARG_TYPE]: The "path" argument must be of type string. Received undefined',
    ),
    "npx, no such package": (
        """npm error code E404
npm error 404 Not Found - GET https://registry.npmjs.org/@x%2fnope - Not found
npm error 404
npm error 404  '@x/nope@*' is not in this registry.
npm error 404
npm error 404 Note that you can also install from a
npm error 404 tarball, folder, http url, or git folder.
npm error A complete log of this run can be found in: /root/.npm/_logs/2026-debug-0.log""",
        "npm E404: 404 Not Found - GET https://registry.npmjs.org/@x%2fnope - Not found",
    ),
    "npx, no such version": (
        """npm ERR! code ETARGET
npm ERR! notarget No matching version found for foo@99.
npm ERR! notarget In most cases you or one of your dependencies are requesting
npm ERR! notarget a package version that doesn't exist.

npm ERR! A complete log of this run can be found in:
npm ERR!     /root/.npm/_logs/x-debug-0.log""",
        "npm ETARGET: No matching version found for foo@99.",
    ),
    "npx, no network": (
        """npm error code EAI_AGAIN
npm error syscall getaddrinfo
npm error errno EAI_AGAIN
npm error request to https://registry.npmjs.org/foo failed, reason: getaddrinfo EAI_AGAIN registry.npmjs.org
npm error A complete log of this run can be found in: /x""",
        (
            "npm EAI_AGAIN: request to https://registry.npmjs.org/foo failed, reason: "
            "getaddrinfo EAI_AGAIN registry.npmjs.org"
        ),
    ),
    "npx, no program in the package": (
        """npm error could not determine executable to run
npm error A complete log of this run can be found in: /x""",
        "npm: could not determine executable to run",
    ),
    "npm, what it started failed": (
        """Error: no key
    at file:///srv/x.js:3:7
npm error Lifecycle script `start` failed with error:
npm error code 1
npm error path /x
npm error command failed
npm error command sh -c node x.js""",
        "Error: no key",
    ),
    "docker, no such image": (
        """Unable to find image 'nope:latest' locally
docker: Error response from daemon: pull access denied for nope, repository does not exist

Run 'docker run --help' for more information""",
        "docker: Error response from daemon: pull access denied for nope, repository does not exist",
    ),
    "docker, no daemon": (
        """docker: Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?.
See 'docker run --help'.""",
        "docker: Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?.",
    ),
    "python": (
        """Traceback (most recent call last):
  File "/srv/x.py", line 3, in <module>
    main()
    ~~~~^^
  File "/srv/x.py", line 2, in main
    raise RuntimeError("no key")
RuntimeError: no key
Exception ignored in: <stdout>""",
        "RuntimeError: no key",
    ),
    "python, one after another": (
        """Traceback (most recent call last):
  File "a", line 1, in f
KeyError: 'X'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a", line 1, in f
mcp.shared.exceptions.McpError: no X""",
        "mcp.shared.exceptions.McpError: no X",
    ),
    "python, an exception group": (
        """  + Exception Group Traceback (most recent call last):
  |   File "/srv/x.py", line 3, in <module>
  |     anyio.run(main)
  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/srv/x.py", line 9, in main
    |     raise ValueError("bad port")
    | ValueError: bad port
    +------------------------------------""",
        "ValueError: bad port",
    ),
    "python, settings": (
        """Traceback (most recent call last):
  File "x", line 1, in f
pydantic_core._pydantic_core.ValidationError: 1 validation error for Settings
api_key
  Field required [type=missing, input_value={}, input_type=dict]
    For further information visit https://errors.pydantic.dev/2.11/v/missing""",
        (
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for Settings api_key "
            "Field required [type=missing, input_value={}, input_type=dict]"
        ),
    ),
    "python -m": ("/usr/bin/python3: No module named mcp_nope", "/usr/bin/python3: No module named mcp_nope"),
    "python, no such file": (
        "python3: can't open file '/x.py': [Errno 2] No such file or directory",
        "python3: can't open file '/x.py': [Errno 2] No such file or directory",
    ),
    "uvx, no such package": (
        """  \u00d7 No solution found when resolving tool dependencies:
  ╰─▶ Because nope-mcp was not found in the package registry and you require
      nope-mcp, we can conclude that your requirements are unsatisfiable.
  help: If you want to add the package regardless of the failed resolution""",
        (
            "No solution found when resolving tool dependencies: Because nope-mcp was not found in the package "
            "registry and you require nope-mcp, we can conclude that your requirements are unsatisfiable."
        ),
    ),
    "uvx, no network": (
        """error: Failed to fetch: `https://pypi.org/simple/x/`
  Caused by: Request failed after 3 retries
  Caused by: dns error""",
        "error: Failed to fetch: `https://pypi.org/simple/x/`",
    ),
    "java": (
        """Exception in thread "main" java.lang.IllegalStateException: cannot start
\tat com.x.Main.main(Main.java:3)
Caused by: java.io.FileNotFoundException: app.yml (No such file or directory)
\tat java.base/java.io.FileInputStream.open0(Native Method)
\t... 1 more""",
        "Caused by: java.io.FileNotFoundException: app.yml (No such file or directory)",
    ),
    "java, no such jar": ("Error: Unable to access jarfile x.jar", "Error: Unable to access jarfile x.jar"),
    "go": (
        """panic: runtime error: invalid memory address or nil pointer dereference
[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x48]

goroutine 1 [running]:
main.main()
\t/srv/main.go:8 +0x1d
exit status 2""",
        "panic: runtime error: invalid memory address or nil pointer dereference",
    ),
    "go, a log line": (
        "2026/01/02 10:00:00 main.go:12: GITHUB_PERSONAL_ACCESS_TOKEN not set",
        "2026/01/02 10:00:00 main.go:12: GITHUB_PERSONAL_ACCESS_TOKEN not set",
    ),
    "ruby": (
        """/usr/lib/ruby/kernel_require.rb:85:in `require': cannot load such file -- mcp (LoadError)
\tfrom /usr/lib/ruby/kernel_require.rb:85:in `require'
\tfrom x.rb:1:in `<main>'""",
        "/usr/lib/ruby/kernel_require.rb:85:in `require': cannot load such file -- mcp (LoadError)",
    ),
    "deno": (
        """error: Uncaught (in promise) Error: no key
    throw new Error("no key");
          ^
    at file:///srv/x.ts:1:7""",
        "error: Uncaught (in promise) Error: no key",
    ),
    "bun": (
        """1 | throw new Error("no key");
              ^
error: no key
      at /srv/x.ts:1:7

Bun v1.1.0 (Linux x64)""",
        "error: no key",
    ),
    "rust": (
        """thread 'main' panicked at src/main.rs:2:5:
no key given
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace""",
        "no key given",
    ),
    ".NET": (
        """Unhandled exception. System.InvalidOperationException: no key
   at Program.<Main>$(String[] args) in /srv/Program.cs:line 3""",
        "Unhandled exception. System.InvalidOperationException: no key",
    ),
    "a shell": ("/bin/sh: 1: foo: not found", "/bin/sh: 1: foo: not found"),
    "an error and how to use it": (
        "Error: API_KEY environment variable is required\nUsage: server --port N\nOptions:\n  --port  the port",
        "Error: API_KEY environment variable is required",
    ),
    "pino": (
        '{"level":30,"msg":"starting"}\n{"level":60,"time":1,"msg":"bad port"}\n{"level":30,"msg":"bye"}',
        "bad port",
    ),
    "logfmt": ('time=x level=error msg="cannot bind" port=1\ntime=x level=info msg=bye', "cannot bind"),
    "words of its own": (
        "starting\nYou must set an account: it is required\nbye",
        "You must set an account: it is required",
    ),
    "no error at all": ("starting\nconnecting to database\nbye", "bye"),
    "in colours": ("\x1b[31mError: no key\x1b[0m\n\x1b[2mbye\x1b[0m", "Error: no key"),
    "a progress bar": ("loading 10%\rloading 20%\rcannot load", "cannot load"),
    "nothing": ("", ""),
}
"""By what wrote it: the text, and the reason."""
