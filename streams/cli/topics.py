"""``coldstart topics``: the topics of this installation."""

from __future__ import annotations

from typing import Annotated

import typer

from streams.cli import tables
from streams.cli.contract import show
from streams.cli.options import Bootstrap, Config, errors_explained, naming_of, settings_from
from streams.contract.topics import TOPICS
from streams.runtime.terminal import Table, say

app = typer.Typer(
    no_args_is_help=True,
    help="Create, list, check and update the topics.",
)


@app.command("list")
def list_topics(config: Config = None) -> None:
    """Show every declared topic: key, partitions, cleanup, writer, meaning.

    Example: coldstart topics list
    """
    with errors_explained():
        naming = naming_of(settings_from(config))
    table = Table("topic", "key", "partitions", "cleanup", "written by", "meaning", title="Topics, as declared")
    for topic in TOPICS:
        days = "" if topic.retention_ms is None else f" {topic.retention_ms // 86_400_000} d"
        table.add_row(
            naming.name(topic), topic.key, str(naming.partitions(topic)), topic.cleanup + days, topic.writers,
            topic.meaning,
        )  # fmt: skip
    tables.show(table)


@app.command()
def create(config: Config = None, bootstrap: Bootstrap = None) -> None:
    """Create missing topics with their settings. For existing ones use `coldstart topics update`.

    Example: coldstart topics create --bootstrap-servers broker-1:9092
    """
    from streams.kafka.clients import admin
    from streams.kafka.topic_admin import create_topics

    with errors_explained():
        settings = settings_from(config, bootstrap)
        created = create_topics(admin(settings.kafka), naming_of(settings), settings.topics.replication_factor)
    for name in created:
        say(f"created {name}")
    say(f"{len(created)} created, {len(TOPICS) - len(created)} existed already")


@app.command()
def update(config: Config = None, bootstrap: Bootstrap = None) -> None:
    """Apply the declared settings to existing topics; `coldstart topics check` shows what would change.

    Example: coldstart topics check; coldstart topics update
    """
    from streams.kafka.clients import admin
    from streams.kafka.topic_admin import update_topics

    with errors_explained():
        settings = settings_from(config, bootstrap)
        changed = update_topics(admin(settings.kafka), naming_of(settings), settings.topics.replication_factor)
    for each in changed:
        say(f"{each.topic}: {each.what} was {each.found}, is {each.declared}")
    say(f"{len(changed)} settings changed")


@app.command()
def check(config: Config = None, bootstrap: Bootstrap = None) -> None:
    """Compare the broker's topics with the declaration. Exit code 1 if they differ, with each difference.

    Example: coldstart topics check
    """
    from streams.kafka.clients import admin
    from streams.kafka.topic_admin import deviations

    with errors_explained():
        settings = settings_from(config, bootstrap)
        found = deviations(admin(settings.kafka), naming_of(settings), settings.topics.replication_factor)
    for deviation in found:
        say(str(deviation))
    if found:
        raise typer.Exit(1)
    say(f"{len(TOPICS)} topics are as declared")


@app.command()
def adopt(
    topic: Annotated[str, typer.Argument(help="The topic, without the prefix: an input of a role, or audience-state.")],
    config: Config = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Accept an input topic that was deleted and recreated: workers read it from its beginning at their next start.

    The state stays; unread records of the former topic are lost. `audience-state` accepts the state's positions where
    the group's differ. The role's workers must be stopped.

    Example: coldstart topics create; coldstart topics adopt listens
    """
    from streams.operations.adopt_topic import adopt
    from streams.runtime.clock import SystemClock

    with errors_explained():
        settings = settings_from(config, bootstrap)
        naming = naming_of(settings)
        patience_s = 5 + max(settings.audience.session_timeout_s, settings.songs.session_timeout_s)
        say(adopt(settings.kafka, naming, topic.removeprefix(naming.prefix), SystemClock(), patience_s))


@app.command()
def acls(
    apply: Annotated[bool, typer.Option("--apply", help="Grant them on the broker instead of printing them.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option("--actor", help="Only this one, such as push-system; repeatable."),
    ] = None,
    config: Config = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Print the least rights of each role and each team around them, as kafka-acls commands.

    These suffice for each of them. The names of Kafka users are suggestions: replace them with yours.

    Example: coldstart topics acls --actor push-system
    """
    from streams.operations.access_rights import ACTORS, commands, grants

    names = [actor.name for actor in ACTORS]
    if unknown := sorted(set(only or ()) - set(names)):
        raise typer.BadParameter(
            f"{', '.join(unknown)}: no such actor; allowed: {', '.join(names)}", param_hint="--actor"
        )
    chosen = [actor for actor in ACTORS if not only or actor.name in only]
    with errors_explained():
        settings = settings_from(config, bootstrap)
        naming = naming_of(settings)
        if apply:
            from streams.kafka.clients import admin
            from streams.kafka.topic_admin import grant

            granted = grant(
                admin(settings.kafka), [each for actor in chosen for each in grants(actor, naming, actor.name)]
            )
            say(f"{granted} rights of {len(chosen)} users are granted")
            return
        for actor in chosen:
            say(f"# {actor.name}: {actor.does}")
            for command in commands(actor, naming, actor.name, settings.kafka.bootstrap_servers):
                say(command)


# Where the document was printed until the contract had verbs of its own.
app.command("contract", hidden=True)(show)
