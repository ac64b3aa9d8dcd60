"""Call recordings of a telephony company: an index in SQL, and recordings and transcripts in an S3 bucket.

What its owner decided, and whoever erases from it has to respect:

- A call is found by the caller's number, in E.164 form. Its objects lie in a folder of its own,
  `calls/<year>/<month>/<call id>/` by the month of its start in UTC. Some older ones lie elsewhere (`archive/…`); the
  index names those. A folder may hold objects that the index does not name, such as a second channel.
- The bucket keeps every version of an object. A plain delete only puts a delete marker on top, and below it everything
  can still be listened to: a recording is gone when no version and no marker of its key is left.
- Use is suspended record by record: the column `suspended_by` of the index, and the tag `suspended_by` on each version
  of an object, name who asked. The company's player (see `player`) serves nothing that is suspended. The marker
  `manual` is set by the company's own people, and only they lift it.
- The handler may list, tag and delete versions, and never listen to one.
"""

from keshi.dev.systems.call_recordings.settle import settle

__all__ = ["settle"]
