"""`headcount site reload`: change the site of a running deployment."""

from __future__ import annotations

import click

from headcount.cli.client import RunningDeployment, on_deployment


@click.command()
@on_deployment("site")
async def reload(running: RunningDeployment) -> None:
    """Change the site of a running deployment.

    Checks the site file. All roles that need a site end, and start again with it: counting pauses for some seconds, and
    continues from the log of the last hour. The id of the site must stay the same. A role with another file waits, and
    logs that.

    \b
    Examples:
      headcount site reload
      headcount site reload --site sites/campus.geojson --data /var/lib/headcount
    """
    from headcount.services.actors import COMMAND_LINE
    from headcount.sites.files import load_site

    file = running.settings.site
    site = load_site(file)
    changed = await running.services.site.change(COMMAND_LINE, site.id, site.digest())
    zones = len(site.zones) - 1
    if changed:
        click.echo(f"{file}: the roles start again with this site ({zones} zones).")
    else:
        click.echo(f"{file}: the deployment runs with this site already ({zones} zones).")
