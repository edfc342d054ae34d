"""The engine room: pure state machines and the thin shells that drive them.

Nothing here is public.  Layers, lowest first: ``base``; ``wire``, ``serial``,
``policy`` and ``store``; ``control``, ``node``, ``owner`` and ``executor``; ``io``;
``process``.  A module imports only from lower layers.
"""
