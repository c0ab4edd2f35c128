python3 -m venv .venv
. .venv/bin/activate
pip install '.[cli]' mcp-server-time
cd docs_src/tutorial
