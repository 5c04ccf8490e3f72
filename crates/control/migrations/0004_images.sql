-- What the image references of a revision stand for, once resolved.
ALTER TABLE revisions ADD COLUMN images TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(images));

DROP TRIGGER revisions_are_immutable;

-- An image that is known stays; one that was not may become so.
CREATE TRIGGER revisions_are_immutable BEFORE UPDATE ON revisions
WHEN NEW.family <> OLD.family OR NEW.number <> OLD.number OR NEW.hash <> OLD.hash
  OR (OLD.spec IS NOT NULL AND (NEW.spec IS NOT OLD.spec OR NEW.created_at <> OLD.created_at))
  OR EXISTS (
    SELECT 1 FROM json_each(OLD.images) AS old
    WHERE NOT EXISTS (SELECT 1 FROM json_each(NEW.images) AS new WHERE new.key = old.key AND new.value = old.value)
  )
BEGIN
    SELECT RAISE(ABORT, 'a revision is never altered');
END;
