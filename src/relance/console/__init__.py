"""The web console: topics, records, groups and lag in a browser, read-only.

Promise: payloads, keys, headers and names are shown as text, never as markup; looking changes nothing in the
cluster; a broker that is away is said in one sentence, and the page recovers by itself.

`app` puts the pages together, `server` runs them, `asks` is the one way to the cluster, `show` turns bytes
into text; `guard` and `params` keep out what doesn't belong. Nothing of it needs JavaScript: `console.js`
adds the refresh in place.
"""

from __future__ import annotations

__all__: list[str] = []
