"""A plugin for asv: the revisions that results were recorded for, read from the results alone.

``asv publish`` asks a repository for the order and dates of commits. A shallow clone or a source archive does not have them,
but each file of results names its commit and that commit's date.
"""

from asv.repo import Repo
from asv.results import iter_results


class RecordedRevisions(Repo):
    """The commits of a folder of results, oldest first."""

    dvcs = "results"
    _default_branch = "main"

    def __init__(self, url, mirror_path):
        dates = {result.commit_hash: result.date for result in iter_results(url)}
        self._dates = dict(sorted(dates.items(), key=lambda item: (item[1], item[0])))

    @classmethod
    def url_match(cls, url):
        return False

    def pull(self):
        pass

    def get_tags(self):
        return {}

    def get_date(self, hash):
        return self._dates[hash]

    get_date_from_name = get_date

    def get_revisions(self, commits):
        return {commit: number for number, commit in enumerate(self._dates) if commit in commits}

    def get_branch_commits(self, branch):
        return list(reversed(self._dates))

    def get_hash_from_name(self, name):
        return name

    def get_name_from_hash(self, commit):
        return None

    def get_range_spec(self, commit_a, commit_b):
        return commit_a, commit_b

    def get_new_range_spec(self, latest_result, branch=None):
        return latest_result, next(reversed(self._dates))

    def get_hashes_from_range(self, range_spec):
        first, last = map(list(self._dates).index, range_spec)
        return list(self._dates)[first + 1 : last + 1]
