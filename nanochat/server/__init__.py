"""The chat in the browser: messages come in over HTTP, the answer goes out as it is written.

guard.py decides who is answered, request.py reads what is asked, worker.py runs the model in a
thread, app.py puts the answer into OpenAI's format, connections.py keeps slow clients from shutting
others out. Knows engines and conversations, not checkpoints; serves this machine only.
"""
